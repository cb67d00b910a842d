"""Processes that begin with TensorFlow loaded, so that a start takes no seconds.

A server loads it once, without running anything in it, since threads would not survive a fork, and forks for each call.
"""

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_LOADED = ["jinja2", "matplotlib.pyplot", "tensorflow", "planar3d.study.cohort", "planar3d.study.reproduce"]
_LOADED += ["planar3d.study.cross_validation"]
LIMIT = 240  # seconds for a call that is to end by itself


class Fork(_SERVER.Process):  # type: ignore[name-defined]
    """A call in a process of its own, with what it prints in a file; what of `subprocess.Popen` is needed here."""

    def __init__(self, call: Callable[[], object], log: Path) -> None:
        _SERVER.set_forkserver_preload(_LOADED)  # not in the forks, whose own servers need none of it
        super().__init__(target=_logged, args=(call, log))
        self.log = log
        self.start()

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, unless it has ended."""
        if self.exitcode is None:
            os.kill(self.pid, number)

    def wait(self, limit: float = LIMIT) -> int:
        """Wait for the end, as long as a call may take: the exit code, minus the signal if it was killed."""
        self.join(limit)
        self.send_signal(signal.SIGKILL)
        self.join()
        return self.exitcode


def run_command(name: str, words: list[str], log: Path, *modules: str) -> Fork:
    """Start a command of the command line, after modules that it is to have imported."""
    return Fork(partial(_command, name, [str(word) for word in words], modules), log)


def _logged(call: Callable[[], object], log: Path) -> None:
    with log.open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    call()


def _command(name: str, words: list[str], modules: Sequence[str]) -> None:
    for module in ("logical_devices", "narrow_encoder", *modules):
        importlib.import_module(module)

    from planar3d import cli

    # Started in the background, a process inherits that Ctrl-C means nothing to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [name, *words]
    cli.main(getattr(cli, name))
