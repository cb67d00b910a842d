"""Where a training stands, saved after every epoch as one file, so that a stopped run goes on exactly."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from planar3d.errors import RunError
from planar3d.files import read_json, write_csv, write_json, written_beside

HISTORY_COLUMNS = ("epoch", "learning_rate", "loss", "dice", "val_loss", "val_dice", "seconds")


@dataclass
class Progress:
    """Where a training stands; all of it is saved and restored."""

    epoch: int = 0
    best: float = float("nan")
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def stale(self) -> int:
        """Epochs since the best one."""
        return self.epoch - self.best_epoch


def is_finished(folder: Path) -> bool:
    """Whether the training of this fold has ended."""
    return (folder / "training.json").is_file()


def finish(folder: Path, progress: Progress) -> None:
    """Say that the training has ended, and remove what only resuming needed."""
    write_json(folder / "training.json", {k: v for k, v in vars(progress).items() if k != "history"})
    _remove_backup(folder)


def finished(folder: Path) -> Progress:
    """The progress of a training that has ended; a backup that it was stopped before removing is removed."""
    _remove_backup(folder)
    with (folder / "history.csv").open(newline="") as stream:
        history = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]
    return Progress(**read_json(folder / "training.json"), history=history)


def save(folder: Path, trainer: keras.Model, progress: Progress) -> None:
    """Save weights, optimizer and progress: one file for everything, so that it is all of one epoch."""
    write_csv(folder / "history.csv", HISTORY_COLUMNS, progress.history)
    arrays = {f"weight-{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(trainer.trainable_variables)}
    arrays |= {f"optimizer-{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(trainer.optimizer.variables)}
    arrays["progress"] = np.frombuffer(json.dumps(vars(progress)).encode(), np.uint8)
    with written_beside(_backup(folder)) as temporary:
        np.savez(temporary, **arrays)


def restore(folder: Path, trainer: keras.Model) -> Progress:
    """Fill a trainer from the last saved epoch, if there is one, and return its progress.

    Raises:
        RunError: the saved state is damaged or of another network.
    """
    path = _backup(folder)
    if not path.is_file():
        return Progress()
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for i, variable in enumerate(trainer.trainable_variables):
                variable.assign(arrays[f"weight-{i}"])
            for i, variable in enumerate(trainer.optimizer.variables):
                variable.assign(arrays[f"optimizer-{i}"])
            return Progress(**json.loads(arrays["progress"].tobytes()))
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"{path} cannot be resumed from ({error}). Delete {path.parent} to train from the start."
        ) from None


def _backup(folder: Path) -> Path:
    return folder / "backup" / "state.npz"


def _remove_backup(folder: Path) -> None:
    backup = _backup(folder)
    backup.unlink(missing_ok=True)
    if backup.parent.is_dir():
        backup.parent.rmdir()
