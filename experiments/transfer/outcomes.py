"""The outcome of a run of the comparison: its rows of results.csv and curves.csv; and the finished runs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from planar3d.files import read_rows, write_csv

HERE = Path(__file__).parent
# Every arm by the name of its recipe file, with its description; the others are compared with the first.
ARMS = {
    "imagenet-frozen": "ImageNet, planar, frozen",
    "imagenet-tuned": "ImageNet, planar, fine-tuned",
    "random-frozen": "random, frozen",
    "random-trained": "random, trained",
    "random-scaled": "random of unit variance, frozen",
    "imagenet-inflated": "ImageNet, averaged 3×3×3, frozen",
}
FOLDS = (1, 2, 3)
SEEDS = (0, 1, 2)

Row = Mapping[str, str]
# `settings` identifies runs whose recipe was changed on the command line; the experiment's own have none.
_KEY = ("arm", "seed", "fold", "settings")
RESULT_COLUMNS = (
    *("arm", "seed", "fold", "scan", "settings", "steps"),
    *("dice", "sensitivity", "precision", "lesion_f1", "dice_at_128", "largest_probability", "collapsed"),
    *("best_val_dice", "best_epoch", "last_val_dice", "train_seconds", "predict_seconds", "peak_gib", "versions"),
)
CURVE_COLUMNS = (*_KEY, "epoch", "steps", "loss", "dice", "val_loss", "val_dice", "seconds")


class Planned(NamedTuple):
    """One run: an arm, with a seed, on a fold."""

    arm: str
    seed: int
    fold: int

    def key(self, settings: str = "") -> tuple[str, ...]:
        """The first columns of its rows."""
        return self.arm, str(self.seed), str(self.fold), settings


def in_order(arms: Sequence[str], seeds: Sequence[int], folds: Sequence[int]) -> list[Planned]:
    """All runs, ordered for early complete comparisons: every arm, then the next fold or seed."""
    return [Planned(arm, seed, fold) for seed in seeds for fold in folds for arm in arms]


def has_collapsed(largest_probability: float, threshold: float, lesion_voxels: int) -> bool:
    """Whether nothing is marked: no probability reaches the threshold (of 256), or the native mask is empty."""
    return largest_probability * 256 <= threshold or lesion_voxels == 0


def runs_in(rows: Iterable[Row]) -> set[tuple[str, ...]]:
    """The keys of the runs of rows."""
    return {tuple(row[name] for name in _KEY) for row in rows}


def add_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Add the rows of runs to a CSV file, replacing earlier rows of the same runs."""
    new = [{name: str(value) for name, value in row.items()} for row in rows]
    added = runs_in(new)
    kept = [row for row in read_rows(path) if tuple(row[name] for name in _KEY) not in added]
    write_csv(path, columns, [*kept, *new])
