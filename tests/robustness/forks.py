"""A fork of this process that calls a function and ends, with what it prints in a file."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

CRASHED = 70


def fork(call: Callable[[], object], log: Path) -> int:
    """Call a function in a fork; returns the fork's number here. It ends with 0, its exit code, or `CRASHED`."""
    pid = os.fork()
    if pid:
        return pid
    code = CRASHED
    try:
        with log.open("a") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        call()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
