"""What all targets share: from labels to the channels of a network's output, and to the masks that are scored."""

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from scipy import special

from planar3d.errors import RecipeError, ScanError
from planar3d.scans.volume import Scan, read_labels
from planar3d.sections import Section

Labels = tuple[int, ...]
Grid = Sequence[float] | np.ndarray  # a voxel's edges in mm, or an affine, as `voxel_mm3` takes them
_TOLERANCE = 1e-3  # of a label; some files hold 1.00000006 for 1
_SHOWN = 6  # labels of a file that a sentence lists


class Scale(NamedTuple):
    """What is averaged where tiles overlap, and how probabilities (…, outputs) come to it and back."""

    given: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


def _log(probabilities: np.ndarray) -> np.ndarray:
    # What softmax loses of its logits is one number for all channels, which the softmax of their mean loses too.
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


AS_GIVEN = Scale(lambda given: given, lambda given: given)
# By the tiles' word for it, and by activation; a sigmoid in float32 rounds away what is far above 0.
SCALES: dict[str, dict[str, Scale]] = {
    "probabilities": {"sigmoid": AS_GIVEN, "softmax": AS_GIVEN},
    "logits": {"softmax": Scale(_log, lambda logits: special.softmax(logits, axis=-1))},
}


class Targets(Section):
    """What a network learns of a label map, and how its output becomes one. Subclasses are frozen dataclasses.

    Attributes:
        name: in `TARGETS`.
        activation: of the network's output.
        channels: the labels that each channel of the output stands for.
        scored: what is scored, by name, and the labels that it consists of.
        measures: the set by which it is scored, in `MEASURE_SETS`.
        noun: what a connected part of a target is called.
        decision: how a voxel gets its label, in words.
        in_head: whether they lie in a head, so that scans are checked as ones of heads.
        plausible_share: of the head, of which all targets together hardly ever take up more.

    Raises:
        RecipeError: fields that are wrong or do not go together.
    """

    activation: ClassVar[Literal["sigmoid", "softmax"]]
    noun: ClassVar[str] = "component"
    decision: str
    measures: str
    in_head: bool
    plausible_share: float

    @property
    @abstractmethod
    def channels(self) -> tuple[Labels, ...]: ...  # noqa: D102

    @property
    @abstractmethod
    def scored(self) -> dict[str, Labels]: ...  # noqa: D102

    @abstractmethod
    def assign(self, probabilities: np.ndarray, highest: float | None = None) -> np.ndarray:
        """The label of each voxel by its own probabilities, before any rule on what is too small.

        Args:
            probabilities: floats (slices, …, outputs) in [0, 1].
            highest: the highest probability of the scan, where these are of a part of it.

        Returns:
            uint8 (slices, …).
        """

    def decode(self, probabilities: np.ndarray, spacing: Grid) -> np.ndarray:
        """The label map of a whole scan.

        Args:
            probabilities: floats (slices, rows, cols, outputs) in [0, 1].
            spacing: the voxel's edges in mm, one per axis, or the grid's affine (4×4 or its 3×3), for a sheared grid.

        Returns:
            uint8 (slices, rows, cols), with labels as the data set writes them.
        """
        return self.assign(probabilities)

    def foreground(self, probabilities: np.ndarray) -> np.ndarray:
        """The probability (slices, rows, cols) of any target, from those (slices, rows, cols[, outputs]) of each."""
        return probabilities if probabilities.ndim == 3 else probabilities[..., 0]

    def with_background(self, probabilities: np.ndarray) -> np.ndarray:
        """Have voxels that no network has seen, of probability 0 throughout, be background for certain."""
        return probabilities

    @property
    def outputs(self) -> int:
        """Channels of the network's output."""
        return len(self.channels)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what is scored."""
        return tuple(self.scored)

    def output_bias(self, prior: float) -> np.ndarray:
        """The logits (outputs,) of an untrained network, float32, so that each target has the probability `prior`."""
        return np.full(self.outputs, np.log(prior / (1 - prior)), np.float32)

    @property
    def background(self) -> np.ndarray:
        """What the network is to give where there is nothing: uint8 (outputs,)."""
        return self.encode(np.zeros((), np.uint8))

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """What the network is to give for a label map: uint8 {0, 1} (…, outputs).

        Encode before anything is interpolated: no voxel halfway between the labels 0 and 4 is of label 2.
        """
        encoded = np.empty((*np.shape(labels), self.outputs), np.uint8)
        for number, values in enumerate(self.channels):
            encoded[..., number] = _among(labels, values)
        return encoded

    def read(self, path: Path, scan: Scan, assume_affine: bool = False) -> Scan:
        """Read the label map of a scan, on its grid; see `read_labels`, and `check_labels`."""
        found = read_labels(path, scan, assume_affine)
        self.check_labels(found.voxels, str(path))
        return found

    def masks(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """A boolean mask of each thing that is scored, by name."""
        return {name: _among(labels, values) for name, values in self.scored.items()}

    def check_labels(self, labels: np.ndarray, source: str) -> None:
        """Refuse a label map that holds labels which the targets do not know.

        Args:
            labels: (slices, rows, cols).
            source: its file, for the sentence.
        """
        known = sorted({0}.union(*self.channels))
        found: set[float] = set()
        for slab in np.asarray(labels):
            found.update(np.unique(slab).tolist())
            if len(found) > 10 * len(known):
                break
        if all(min(abs(value - label) for label in known) <= _TOLERANCE for value in found):
            return
        shown = ", ".join(f"{value:g}" for value in sorted(found)[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
        meant = ", ".join(f"{name}={'+'.join(map(str, values))}" for name, values in self.scored.items())
        raise ScanError(
            f"{source} has the labels {shown}; the targets have {', '.join(map(str, known))} ({meant}). Set the "
            "targets to the labels of this data set, or name the right label map."
        )


def regions_of(field: str, texts: tuple[str, ...]) -> dict[str, Labels]:
    """Names and labels of `("WT=1+2+4", …)`; a `RecipeError` of anything else, a name twice, or nothing."""
    found: dict[str, Labels] = {}
    for text in texts or ("",):
        name, _, labels = text.partition("=")
        values = tuple(map(int, labels.split("+"))) if re.fullmatch(r"[0-9]+(\+[0-9]+)*", labels) else ()
        if not name or name in found or not values or not all(0 < value < 256 for value in values):
            raise RecipeError(f"{field}={text!r}: a unique name and labels from 1 to 255 are needed, as in WT=1+2+4.")
        found[name] = values
    return found


def _among(labels: np.ndarray, values: Labels) -> np.ndarray:
    """Whether each label is one of the values; a byte a voxel."""
    labels = np.rint(labels) if np.asarray(labels).dtype.kind == "f" else np.asarray(labels)
    among = labels == values[0]
    for value in values[1:]:
        among |= labels == value
    return among
