"""The state of a training, saved after every epoch as one file, so that an interrupted run resumes exactly."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from ml_dtypes import bfloat16

from planar3d.errors import RunError
from planar3d.files import read_json, read_rows, write_csv, write_json, written_beside
from planar3d.training.schedules import PlateauState

BEST_WEIGHTS = "best.weights.h5"  # in the folder of a fold
HISTORY_COLUMNS = ("epoch", "learning_rate", "loss", "dice", "val_loss", "val_dice", "seconds")
_COUNTER = re.compile(r"_\d+/")


@dataclass
class TrainingProgress:
    """The progress of a training; all of it is saved and restored."""

    epoch: int = 0
    best: float = float("nan")
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    plateau: PlateauState | None = None  # of the schedule, if any

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "TrainingProgress":
        """From the output of `asdict`; a `ValueError` or another error for any other content."""
        plateau = content.pop("plateau", None)
        made = cls(**content, plateau=PlateauState(**plateau) if plateau else None)
        numbers = [made.best, *(value for row in made.history for value in row.values())]
        numbers += [value for value in asdict(made.plateau).values() if value is not None] if made.plateau else []
        counts = (made.epoch, made.best_epoch)
        if not all(isinstance(n, int | float) for n in numbers) or not all(type(n) is int and n >= 0 for n in counts):
            raise ValueError("its epochs or losses are not numbers")
        return made


def is_finished(folder: Path) -> bool:
    """Whether the training of this fold has ended."""
    return (folder / "training.json").is_file()


def finish(folder: Path, progress: TrainingProgress) -> None:
    """Mark the training as ended, and remove files only needed for resuming."""
    write_json(folder / "training.json", {k: v for k, v in asdict(progress).items() if k != "history"})
    _remove_backup(folder)


def finished_progress(folder: Path) -> TrainingProgress:
    """The progress of a training that has ended; a leftover backup is removed."""
    _remove_backup(folder)
    path = folder / "history.csv"
    try:
        history = [{k: float(v) for k, v in row.items()} for row in read_rows(path)]
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}). Delete it to continue without this learning curve.") from None
    progress: TrainingProgress = read_json(
        folder / "training.json", lambda content: TrainingProgress.from_json(content | {"history": history})
    )
    _check_best(folder, progress)
    return progress


def save(folder: Path, network: keras.Model, optimizer: keras.optimizers.Optimizer, progress: TrainingProgress) -> None:
    """Save network, optimizer and progress in one file, so that all are from the same epoch.

    All variables of the network are saved: weights, batch statistics, and the states of random layers.
    """
    write_csv(folder / "history.csv", HISTORY_COLUMNS, progress.history)
    arrays = {name: keras.ops.convert_to_numpy(v) for name, v in _named(network, optimizer).items()}
    # NumPy files do not support bfloat16.
    arrays = {name: array.astype(np.float32) if array.dtype == bfloat16 else array for name, array in arrays.items()}
    arrays["progress"] = np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)
    with written_beside(_backup(folder)) as temporary:
        np.savez(temporary, **arrays)


def restore(folder: Path, network: keras.Model, optimizer: keras.optimizers.Optimizer) -> TrainingProgress:
    """Restore network and optimizer from the last saved epoch, if any, and return its progress.

    Raises:
        RunError: the saved state is damaged or from another network or optimizer, or the best weights so far are gone;
            then nothing is restored.
    """
    path = _backup(folder)
    if not path.is_file():
        return TrainingProgress()
    variables = _named(network, optimizer)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        progress = TrainingProgress.from_json(json.loads(arrays.pop("progress").tobytes()))
        if other := sorted({column for row in progress.history for column in row.keys() ^ HISTORY_COLUMNS}):
            raise ValueError(f"the columns of its learning curve differ from planar3d's: {', '.join(other)}")
        if unlike := _first_difference(variables, arrays):
            raise ValueError(unlike)
    except Exception as error:  # the zip reader and NumPy raise different errors for damaged bytes
        raise RunError(
            f"Training cannot resume from {path} ({error}). Delete {path.parent.parent} to train from the start."
        ) from None
    _check_best(folder, progress)
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return progress


def _check_best(folder: Path, progress: TrainingProgress) -> None:
    """Raise a `RunError` if the best weights so far are gone: only their own epoch could write them again."""
    best = folder / BEST_WEIGHTS
    if progress.best_epoch and not best.is_file():
        raise RunError(
            f"{best}, the weights of epoch {progress.best_epoch}, is missing. Put it back, or delete {folder} to train "
            "from the start."
        )


def _named(network: keras.Model, optimizer: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """All variables by their paths, independent of other networks in the process."""
    named: dict[str, keras.Variable] = {}
    copies: Counter[str] = Counter()
    for part, variables in (("network", network.variables), ("optimizer", optimizer.variables)):
        for variable in variables:
            # Keras numbers optimizers and seed generators per process: adam_1, seed_generator_7.
            counted = part == "optimizer" or variable.path.startswith("seed_generator")
            path = f"{part}/{_COUNTER.sub('/', variable.path, count=1) if counted else variable.path}"
            named[f"{path}#{copies[path]}" if copies[path] else path] = variable
            copies[path] += 1
    return named


def _first_difference(variables: Mapping[str, keras.Variable], arrays: Mapping[str, np.ndarray]) -> str:
    """A description of the first difference; empty if names and shapes agree."""
    for name in sorted(variables.keys() ^ arrays.keys()):
        return f"{name} is only in {'the checkpoint' if name in arrays else 'this training'}"
    for name, variable in variables.items():
        if variable.shape != arrays[name].shape:
            return f"{name} has the shape {arrays[name].shape} in the checkpoint and {tuple(variable.shape)} now"
        if arrays[name].dtype.kind not in "fiub":
            return f"{name} has {arrays[name].dtype} instead of numbers in the checkpoint"
    return ""


def _backup(folder: Path) -> Path:
    return folder / "backup" / "state.npz"


def _remove_backup(folder: Path) -> None:
    backup = _backup(folder)
    backup.unlink(missing_ok=True)
    with suppress(OSError):  # it may have a user's file
        backup.parent.rmdir()
