"""Interface of targets: from labels to the channels of a network's output and to scored masks."""

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from scipy import special

from planar3d.errors import RecipeError, ScanError
from planar3d.scans.geometry import Grid
from planar3d.scans.volume import Scan, read_labels
from planar3d.sections import Section

Labels = tuple[int, ...]
_SHOWN = 6  # labels of a file listed in an error message


class Scale(NamedTuple):
    """The quantity averaged where tiles overlap, with its conversions from and to probabilities (…, outputs)."""

    given: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


_LOGITS = Scale(  # up to a constant for all, to which softmax is invariant, and so is the softmax of their mean
    lambda given: np.log(np.maximum(given, np.finfo(np.float32).tiny)), lambda logits: special.softmax(logits, axis=-1)
)
# By `averaged` of the tiles, and by activation; a sigmoid in float32 saturates far above 0.
SCALES: dict[str, dict[str, Scale]] = {
    "probabilities": dict.fromkeys(("sigmoid", "softmax"), Scale(lambda given: given, lambda given: given)),
    "logits": {"softmax": _LOGITS},
}


class Targets(Section):
    """The mapping from a label map to a network's outputs and back. Subclasses are frozen dataclasses."""

    activation: ClassVar[Literal["sigmoid", "softmax"]]  # of the network's output
    channels: tuple[Labels, ...]  # the labels of each channel of the output
    scored: Mapping[str, Labels]  # the labels of each scored target, by name
    noun: ClassVar[str] = "component"  # word for a connected component of a target
    decision: str  # how a voxel gets its label, in words
    measures: str  # the set of scores, in `MEASURE_SETS`
    in_head: bool  # whether targets are in a head, so that scans are checked as head scans
    plausible_share: float  # largest plausible share of all targets in the head

    @abstractmethod
    def assign(self, probabilities: np.ndarray, highest: float | None = None) -> np.ndarray:
        """The label of each voxel, uint8 (slices, …), from probabilities (slices, …, outputs), before any rule on size.

        `highest` is the highest probability of the scan, if these are only part of it.
        """

    def decode(self, probabilities: np.ndarray, spacing: Grid) -> np.ndarray:
        """The label map of a whole scan, uint8 (slices, rows, cols), from probabilities (slices, rows, cols, outputs).

        `spacing` is a voxel's edges in mm, one per axis, or the grid's affine (4×4 or its 3×3), for a sheared grid.
        """
        return self.assign(probabilities)

    def foreground(self, probabilities: np.ndarray) -> np.ndarray:
        """The probability (slices, rows, cols) of any target: the highest of those (slices, rows, cols[, outputs])."""
        return probabilities if probabilities.ndim == 3 else probabilities.max(axis=-1)

    def with_background(self, probabilities: np.ndarray) -> np.ndarray:
        """Make voxels that no network has seen, with probabilities of 0, certain background."""
        return probabilities

    @property
    def outputs(self) -> int:
        """Number of channels of the network's output."""
        return len(self.channels)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the scored targets."""
        return tuple(self.scored)

    def output_bias(self, prior: float) -> np.ndarray:
        """The logits (outputs,) of an untrained network, float32, so that each target has the probability `prior`."""
        return np.full(self.outputs, np.log(prior / (1 - prior)), np.float32)

    @property
    def background(self) -> np.ndarray:
        """The network's target output for background: uint8 (outputs,)."""
        return self.encode(np.zeros((), np.uint8))

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """The network's target output for a label map: uint8 {0, 1} (…, outputs).

        Encode before interpolation: a voxel halfway between the labels 0 and 4 does not have label 2.
        """
        return np.stack([_among(labels, values) for values in self.channels], axis=-1, dtype=np.uint8)

    def read(self, path: Path, scan: Scan, assume_affine: bool = False) -> Scan:
        """Read the label map of a scan, on its grid; see `read_labels`, and `check_labels`."""
        found = read_labels(path, scan, assume_affine)
        self.check_labels(found.voxels, str(path))
        return found

    def masks(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """A boolean mask of each scored target, by name."""
        return {name: _among(labels, values) for name, values in self.scored.items()}

    def check_labels(self, labels: np.ndarray, source: str) -> None:
        """Refuse a label map (slices, rows, cols), of whole numbers, with labels that are not in the targets."""
        known = sorted({0}.union(*self.channels))
        found = sorted(set().union(*(np.unique(slab).tolist() for slab in labels)))
        if set(found) <= set(known):
            return
        shown = ", ".join(map(str, found[:_SHOWN])) + (", …" if len(found) > _SHOWN else "")
        meant = ", ".join(f"{name}={'+'.join(map(str, values))}" for name, values in self.scored.items())
        raise ScanError(
            f"{source} has the labels {shown}; the targets have {', '.join(map(str, known))} ({meant}). Set the "
            "targets to the labels of this data set, or name the right label map."
        )


def regions_of(field: str, texts: tuple[str, ...]) -> dict[str, Labels]:
    """Names and labels of `("WT=1+2+4", …)`; a `RecipeError` for other forms, a repeated name, or an empty list."""
    found: dict[str, Labels] = {}
    for text in texts or ("",):
        name, _, labels = text.partition("=")
        values = tuple(map(int, labels.split("+"))) if re.fullmatch(r"[0-9]+(\+[0-9]+)*", labels) else ()
        if not name or name in found or not values or not all(0 < value < 256 for value in values):
            raise RecipeError(f"{field}={text!r}: a unique name and labels from 1 to 255 are needed, as in WT=1+2+4.")
        found[name] = values
    return found


def names_of_labels(scored: Mapping[str, Labels]) -> dict[int, str]:
    """The targets of each label, joined by a plus, from the labels of each target."""
    labels = sorted(set().union(*scored.values()))
    return {label: "+".join(name for name, own in scored.items() if label in own) for label in labels}


def _among(labels: np.ndarray, values: Labels) -> np.ndarray:
    """Whether each label is one of the values; one byte per voxel."""
    labels = np.rint(labels) if np.asarray(labels).dtype.kind == "f" else np.asarray(labels)
    among = labels == values[0]
    for value in values[1:]:
        among |= labels == value
    return among
