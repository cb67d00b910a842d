"""The command line: one command a verb, and what becomes of a user's problem."""

import sys
from collections.abc import Callable
from typing import Any

import typer

from planar3d.commands.models import export, info, weights
from planar3d.commands.scans import phantom, prepare
from planar3d.commands.segmenting import evaluate, predict
from planar3d.commands.studies import crossval, report, reproduce, train
from planar3d.errors import Planar3DError
from planar3d.interruption import interruptible
from planar3d.quiet_tensorflow import quiet_tensorflow

COMMANDS = (weights, phantom, prepare, train, crossval, reproduce, predict, evaluate, report, info, export)

app = typer.Typer(
    name="planar3d",
    help="Planar 3D transfer learning: ImageNet weights in 3D, lesions in raw FLAIR scans (Kolarik et al. 2020).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in COMMANDS:
    app.command()(_command)

__all__ = ["app", "main", *(command.__name__ for command in COMMANDS)]


def main(command: Callable[..., Any] | None = None) -> None:
    """Run the command line, or one command of it as a script; a user's problem is a sentence and exit code 2."""
    quiet_tensorflow()
    try:
        with interruptible():
            if command is None:
                app()
            else:
                typer.run(command)
    except Planar3DError as error:
        _fail(str(error))
    except OSError as error:
        # A full disk or a folder that may not be written; anything else keeps its traceback.
        if error.strerror is None:
            raise
        _fail(f"{error.filename or 'A file'}: {error.strerror}. Nothing half-written was left behind.")


def _fail(sentence: str) -> None:
    typer.secho(f"Error: {sentence}", fg="red", err=True)
    sys.exit(2)
