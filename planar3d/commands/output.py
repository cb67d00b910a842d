"""Output of commands: lines of a log, and results for other programs."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from typer import echo

from planar3d.wording import visible


def show(text: str) -> None:
    """Print lines of a result."""
    echo(visible(text))


def say(text: str) -> None:
    """Print a line of the log."""
    echo(_line(text))


def say_on_stderr(text: str) -> None:
    """Print a line of the log on standard error, apart from results on standard output."""
    echo(_line(text), err=True)


def log(as_json: bool) -> Callable[[str], None]:
    """The function that prints lines of the log, on standard error if standard output is only for JSON results."""
    return say_on_stderr if as_json else say


def list_failed(failed: Mapping[str, str], as_json: bool = False) -> None:
    """Print why scans failed, by path, as lines of the log."""
    for path, why in failed.items():
        log(as_json)(f"failed  {path}: {why}")


def print_json(content: Any) -> None:
    """Print a result as JSON; NaN and infinities become null."""
    finite = json.loads(json.dumps(content), parse_constant=lambda name: None)
    echo(json.dumps(finite, indent=2))


def _line(text: str) -> str:
    return f"[{time.strftime('%H:%M:%S')}] {visible(text)}"
