"""Output of commands: lines of a log, and results for other programs."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from typer import echo

from planar3d.wording import visible


def show(text: str) -> None:
    """Print lines of a result."""
    echo(visible(text))


def say(text: str, err: bool = False) -> None:
    """Print a line of the log; with `err` on standard error, apart from results on standard output."""
    echo(f"[{time.strftime('%H:%M:%S')}] {visible(text)}", err=err)


def log(as_json: bool) -> Callable[[str], None]:
    """The function that prints lines of the log, on standard error if standard output is only for JSON results."""
    return partial(say, err=as_json)


def list_failed(failed: Mapping[str, str], as_json: bool = False) -> None:
    """Print why scans failed, by path, as lines of the log."""
    for path, why in failed.items():
        log(as_json)(f"failed  {path}: {why}")


def give(result: Any, lines: Iterable[str], as_json: bool) -> None:
    """Print a result as JSON or in lines."""
    if as_json:
        print_json(result)
    else:
        show("\n".join(lines))


def print_json(content: Any) -> None:
    """Print a result as JSON; NaN and infinities become null."""
    finite = json.loads(json.dumps(content), parse_constant=lambda name: None)
    echo(json.dumps(finite, indent=2))
