"""The command line: one command per verb; user errors become one sentence and exit code 2."""

import errno
import os
import re
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from planar3d.commands.models import export, info, weights
from planar3d.commands.scans import phantom, prepare
from planar3d.commands.segmenting import compare, evaluate, predict, status, table
from planar3d.commands.studies import crossval, report, reproduce, train, tune
from planar3d.environment import describe
from planar3d.errors import Planar3DError, Planar3DWarning
from planar3d.extras import unusable
from planar3d.quiet_tensorflow import quiet_tensorflow
from planar3d.wording import visible

_in_full = warnings.formatwarning
_BACKENDS = ("jax", "torch", "openvino")  # packages that Keras' backends import; NumPy's imports jax
# Classes and words by which Python, NumPy, TensorFlow, torch, JAX and OpenVINO say that memory is missing.
_NO_MEMORY = re.compile("MemoryError|ResourceExhausted|OutOfMemory|RESOURCE_EXHAUSTED|allocate .*memory|bad.?alloc")
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")  # by Ctrl-C, by a scheduler, and by closing the terminal
_LATER = 0.1  # seconds after which a lost signal is sent again, so that an error raised instead can end the command

COMMANDS = (
    weights,
    phantom,
    prepare,
    train,
    crossval,
    reproduce,
    predict,
    status,
    table,
    compare,
    evaluate,
    report,
    tune,
    info,
    export,
)

app = typer.Typer(
    name="planar3d",
    help="Planar 3D transfer learning, and lesion segmentation in raw FLAIR scans (Kolarik et al. 2020).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(describe())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the versions in use.")
    ] = False,
) -> None:
    pass


for _command in COMMANDS:
    app.command()(_command)

__all__ = ["app", "main", *(command.__name__ for command in COMMANDS)]


class _Interruption(SystemExit):
    """The end of a process by a signal; `lost` is called with its number when it is discarded."""

    code: int

    def __init__(self, number: int, lost: Callable[[int], None]) -> None:
        super().__init__(128 + number)
        self._lost = lost

    def __del__(self) -> None:
        self._lost(self.code - 128)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP leave the block like an error, so that no half-written file is left.

    The process then exits with 128 plus the signal's number, as is usual in shells; a second signal ends it at once.
    Ignored signals stay ignored, such as Ctrl-C in a shell's background jobs. A signal is sent again if it arrives in a
    destructor or another callback, whose errors Python ignores, or where a library discards all errors, as Keras does
    at times. An error that an extension in C raises instead, as while it is imported, counts as the interruption.
    """
    arrived, is_over, thread = list[int](), False, threading.get_ident()

    def leave(number: int, frame: FrameType | None) -> None:
        for interrupting in before:
            signal.signal(interrupting, signal.SIG_DFL)
        arrived.append(number)
        raise _Interruption(number, send_again)

    def say_and_leave(number: int, frame: FrameType | None) -> None:
        # Not by print, which the signal may have interrupted; and without a word if nobody reads, as after SIGHUP.
        with suppress(AttributeError, OSError):
            os.write(sys.stderr.fileno(), b"Interrupted. Run the same command again to continue.\n")
        leave(number, frame)

    def send_again(number: int) -> None:
        def ring(alarm: int, frame: FrameType | None) -> None:
            if not is_over:
                leave(number, frame)

        # Handlers are only set in the main thread; Windows has no alarm.
        if not is_over and threading.get_ident() == thread and hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, ring)
            signal.setitimer(signal.ITIMER_REAL, _LATER)  # what is raised here would be lost again

    def show(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, _Interruption):
            hook(unraisable)

    known = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    before = {n: signal.signal(n, say_and_leave) for n in known if signal.getsignal(n) != signal.SIG_IGN}
    hook, sys.unraisablehook = sys.unraisablehook, show
    try:
        yield
    except Exception as error:
        if arrived:
            raise _Interruption(arrived[-1], send_again) from error
        raise
    finally:
        is_over = True
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def main(command: Callable[..., Any] | None = None) -> None:
    """Run the command line, or one of its commands as a script; a user error gives one sentence and exit code 2."""
    run_in_sentences(app if command is None else lambda: typer.run(command))


def run_in_sentences(call: Callable[[], Any]) -> Any:
    """Call a function and return its result; an error becomes a sentence and exit code 2, a warning a sentence."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that is not text, or a sign that the terminal lacks, is printed
            stream.reconfigure(errors="backslashreplace")
    quiet_tensorflow()
    warnings.formatwarning = _as_sentence
    try:
        with interruptible():
            _refuse_empty(sys.argv)
            sys.argv[1:] = map(_at_home, sys.argv[1:])
            return call()
    except Planar3DError as error:
        _fail(str(error))
    except ImportError as error:
        if str(error.name).startswith("planar3d"):
            raise
        if error.name not in _BACKENDS or not isinstance(error, ModuleNotFoundError):
            _fail(f"A package that planar3d needs {unusable(error, 'planar3d')}")
        _fail(
            f"Keras is set to a backend that needs {error.name} (by KERAS_BACKEND or in ~/.keras/keras.json), which is "
            f"not installed. Install it with: pip install 'planar3d[{error.name}]', or set KERAS_BACKEND=tensorflow."
        )
    except ValueError as error:
        if not str(error).startswith("Unable to import backend"):
            raise
        _fail(f"{error}. It is set by KERAS_BACKEND or in ~/.keras/keras.json; set KERAS_BACKEND=tensorflow.")
    except BrokenPipeError:  # whoever read the output has ended; of typer's commands it says so itself
        sys.exit(1)
    except OSError as error:
        # A full disk or a read-only folder; anything else keeps its traceback.
        if error.strerror is None:
            raise
        from planar3d.files import file_of  # which imports NumPy

        file = file_of(error)
        _fail(f"{file}: {error.strerror}. No incomplete file was left behind.{_advice(error, file)}")
    except Exception as error:
        said = next(filter(_NO_MEMORY.search, f"{type(error).__name__}: {error}".splitlines()), "")
        if not said:
            raise
        _fail(
            f"Out of memory ({said[:200]}). Finished parts are kept. Use a computer or GPU with more memory, end other "
            "programs, or train with a smaller batch_size, crop, patch or network in a new run folder."
        )


def _advice(error: OSError, file: str) -> str:
    """What to do about the system's refusal to open or write a file; empty for other reasons."""
    is_out = any(word.partition("=")[0] == "--out" for word in sys.argv)
    another = f"choose another folder{' with --out' * is_out}."
    if file == tempfile.tempdir:
        another = "choose another folder for temporary files with TMPDIR."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f" Free space there, or {another}"
    if error.errno == errno.EROFS:
        return f" {another.capitalize()}"
    if error.errno not in (errno.EACCES, errno.EPERM):
        return ""
    there = next(place for place in (Path(file), *Path(file).absolute().parents) if os.path.exists(place))
    if not os.access(there, os.R_OK | (os.X_OK if there.is_dir() else 0)):
        return f" Make {there} readable for your user, or name another."
    return f" Make {there if there.is_dir() else there.absolute().parent} writable for your user, or {another}"


def _refuse_empty(words: Sequence[str]) -> None:
    """Refuse an empty word of a command line, which would be the current folder where a path is needed."""
    for before, word in pairwise(words):
        if not word or re.fullmatch("--[a-z-]+=", word):
            option = (word or before).removesuffix("=")
            named = option if option.startswith("-") else "An argument"
            raise Planar3DError(f"{named} is empty; is a shell variable unset? Give a value.")


def _at_home(word: str) -> str:
    """A word of a command line with the home folder for ~ at its start or after =, where shells leave it: --out=~/a."""
    return re.sub("^([a-z_.-]+=)?~(?=/|$)", lambda found: (found[1] or "") + os.path.expanduser("~"), word)


def _as_sentence(message: Warning | str, category: type[Warning], *place: Any, **line: Any) -> str:
    if category is Planar3DWarning:
        return f"Warning: {visible(str(message))}\n"
    return _in_full(message, category, *place, **line)


def _fail(sentence: str) -> None:
    typer.secho(f"Error: {visible(sentence)}", fg="red", err=True)
    sys.exit(2)
