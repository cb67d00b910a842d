"""Targets by name: lesions, classes and regions. A new one is a class here, and its name in `TARGETS`."""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import numpy as np
from scipy import ndimage

from planar3d.errors import RecipeError
from planar3d.scans.geometry import Grid, voxel_mm3
from planar3d.scans.labels import Labels, Targets, regions_of
from planar3d.scans.volume import Scan, read_mask
from planar3d.scans.windows import numbers_of
from planar3d.sections import NOT_NEGATIVE, SHARE, Limit, check_choice

# Headers have float32 edges: rounding must not drop lesions of exactly the smallest size.
_ROUNDING = 1 - 1e-6
_AVERAGED = 0.01  # of probabilities that were averaged or interpolated in low precision
_TUMOURS = 0.3  # a glioma with its edema may have 300 ml of a brain of 1,300; lesions of MS are far smaller
Measures = Literal["brats", "chaos", "camus", "lesions"]
_OF_256 = Limit(  # a number between 0 and 1 was meant as a probability
    lambda v: v == 0 or 1 <= v <= 256,
    "a threshold from 0 to 256 is needed, but not between 0 and 1 (128 is a probability of 0.5)",
)


@dataclass(frozen=True)
class Binary(Targets):
    """Lesions: 1 where the probability is above the threshold and the lesion is large and probable enough.

    A lesion is a connected component over faces, as in `lesion_table` and `lesion_scores`.

    Source: Kolarik 2020, section 3.2.
    """

    name = "binary"
    activation = "sigmoid"
    channels = ((1,),)
    scored = MappingProxyType({"lesion": (1,)})
    measures = "lesions"
    noun = "lesion"
    in_head = True
    plausible_share = 0.05

    threshold: Annotated[float, _OF_256] = 16.0  # probability threshold, out of 256
    threshold_rule: Literal["absolute", "released"] = "absolute"  # "released": relative to the highest probability
    smallest_lesion_mm3: Annotated[float, NOT_NEGATIVE] = 0.0  # smaller lesions are dropped; 0 keeps all
    least_mean: Annotated[float, _OF_256] = 0.0  # lesions of lower mean probability, out of 256, are dropped

    @property
    def decision(self) -> str:  # type: ignore[override]
        mean = f", mean of a lesion at least {self.least_mean:g}" if self.least_mean else ""
        return f"{self.threshold:g} of 256 ({self.threshold_rule}){mean}"

    def assign(self, probabilities: np.ndarray, highest: float | None = None) -> np.ndarray:
        return threshold(probabilities[..., 0], self.threshold, self.threshold_rule, highest)

    def read(self, path: Path, scan: Scan, assume_affine: bool = False) -> Scan:
        return read_mask(path, scan, assume_affine)

    def decode(self, probabilities: np.ndarray, spacing: Grid) -> np.ndarray:
        mask = self.assign(probabilities)
        smallest_voxels = self.smallest_lesion_mm3 / voxel_mm3(spacing) * _ROUNDING
        found = ndimage.find_objects(mask)
        if found and (smallest_voxels > 1 or self.least_mean):
            inside = mask[found[0]]
            lesions, _ = ndimage.label(inside)
            voxels = np.bincount(lesions.ravel())
            kept = voxels >= smallest_voxels
            if self.least_mean:
                sums = np.bincount(lesions.ravel(), probabilities[found[0]].ravel())
                kept &= sums >= self.least_mean / 256 * voxels
            inside[~kept[lesions]] = 0
        return mask


@dataclass(frozen=True)
class Classes(Targets):
    """One class per voxel by softmax, background first: the label of the most probable class.

    Source: Wacker 2019, section III.A; the paper scores regions.
    """

    name = "classes"
    activation = "softmax"
    decision = "the most probable class"

    classes: tuple[str, ...] = ("lesion=1",)  # classes besides the background, with their labels
    regions: tuple[str, ...] = ()  # scored regions, e.g. WT=1+2+4; default: the classes
    in_head: bool = True  # false: skip the checks of a head scan
    plausible_share: Annotated[float, SHARE] = _TUMOURS  # share of the head; larger results get a warning
    measures: Measures = "brats"  # set of scores: a challenge's, or lesions only

    def check(self) -> None:
        labels = list(regions_of("classes", self.classes).values())
        if len({label for label, *_ in labels}) < sum(map(len, labels)):
            raise RecipeError(f"classes={','.join(self.classes)}: each class needs its own label.")
        if unknown := sorted(set().union(*self.scored.values()).difference(*labels)):
            raise RecipeError(f"regions={','.join(self.regions)}: no class has the label {unknown[0]}.")

    def foreground(self, probabilities: np.ndarray) -> np.ndarray:
        return 1 - probabilities[..., 0]

    def output_bias(self, prior: float) -> np.ndarray:
        """Logits of each class against the background, whose logit is 0."""
        bias = super().output_bias(prior)
        bias[0] = 0
        return bias

    def with_background(self, probabilities: np.ndarray) -> np.ndarray:
        probabilities[~probabilities.any(axis=-1), 0] = 1
        return probabilities

    @property
    def channels(self) -> tuple[Labels, ...]:  # type: ignore[override]
        return (0,), *regions_of("classes", self.classes).values()

    @property
    def scored(self) -> dict[str, Labels]:  # type: ignore[override]
        return regions_of("regions", self.regions or self.classes)

    def assign(self, probabilities: np.ndarray, highest: float | None = None) -> np.ndarray:
        labels = np.array(self.channels, np.uint8)[:, 0]
        assigned = np.empty(probabilities.shape[:-1], np.uint8)
        for number, slab in enumerate(_checked(probabilities)):  # argmax takes eight bytes per voxel
            assigned[number] = labels[np.argmax(slab, axis=-1)]
        return assigned


@dataclass(frozen=True)
class Regions(Targets):
    """Nested regions, each with a sigmoid: where it is above 0.5, the region's label is written.

    Labels are written from the outermost region to the innermost, so a voxel gets the label of its innermost region.

    Source: Messaoudi 2023, section 3.1.3; `order` is what nnU-Net calls `regions_class_order`.
    """

    name = "regions"
    activation = "sigmoid"
    decision = "above 0.5, the innermost region"

    regions: tuple[str, ...] = ("WT=1+2+4", "TC=1+4", "ET=4")  # regions with their labels, outermost first
    order: tuple[int, ...] = (2, 1, 4)  # label written for each region
    smallest_innermost_mm3: Annotated[float, NOT_NEGATIVE] = 0.0  # a smaller total volume becomes the region around it
    in_head: bool = True  # false: skip the checks of a head scan
    plausible_share: Annotated[float, SHARE] = _TUMOURS  # share of the head; larger results get a warning
    measures: Measures = "brats"  # set of scores: a challenge's, or lesions only

    def check(self) -> None:
        """Check that each label has the same regions after encoding and decoding."""
        said = f"regions={','.join(self.regions)}, order={','.join(map(str, self.order))}"
        if len(self.order) != self.outputs or not all(0 < label < 256 for label in self.order):
            raise RecipeError(f"{said}: one label from 1 to 255 is needed for each region.")
        labels = np.array(sorted({0}.union(*self.channels)))
        written = self.assign(self.encode(labels))
        wrong = np.any(self.encode(labels) != self.encode(written), axis=-1)
        if wrong.any():
            raise RecipeError(
                f"{said}: label {labels[wrong][0]} would be written as {written[wrong][0]}, which belongs to other "
                "regions. List the outermost region first, and give each a label that no inner region has."
            )
        around, innermost = ((), *self.channels)[-2:]
        if self.smallest_innermost_mm3 and around and not set(innermost) <= set(around):
            raise RecipeError(
                f"{said}: smallest_innermost_mm3 relabels the last region as the one before it, which does not "
                "contain it. List nested regions last, or set smallest_innermost_mm3=0."
            )

    @property
    def channels(self) -> tuple[Labels, ...]:  # type: ignore[override]
        return tuple(self.scored.values())

    @property
    def scored(self) -> dict[str, Labels]:  # type: ignore[override]
        return regions_of("regions", self.regions)

    def assign(self, probabilities: np.ndarray, highest: float | None = None) -> np.ndarray:
        assigned, probabilities = np.zeros(probabilities.shape[:-1], np.uint8), _checked(probabilities)
        for number, label in enumerate(self.order):
            assigned[probabilities[..., number] > 0.5] = label
        return assigned

    def decode(self, probabilities: np.ndarray, spacing: Grid) -> np.ndarray:
        assigned = self.assign(probabilities)
        around, innermost = (0, *self.order)[-2:]
        inside = assigned == innermost
        if np.count_nonzero(inside) * voxel_mm3(spacing) < self.smallest_innermost_mm3 * _ROUNDING:
            assigned[inside] = around
        return assigned


def threshold(
    probabilities: np.ndarray, of_256: float = 16, rule: str = "absolute", highest: float | None = None
) -> np.ndarray:
    """Binarize lesion probabilities: 1 where p · 256 > t.

    Args:
        probabilities: floats in [0, 1], any shape.
        of_256: the threshold t, out of 256; the paper's is 16.
        rule: `"absolute"`; or `"released"`, relative to the volume's own maximum as in the released code:
            q = uint8(255 · p), 1 where q > max(q) // (256 / t), which is max(q) // 16 for t = 16.
        highest: the volume's maximum, for `"released"` if the probabilities are only a part of the volume.

    Returns:
        uint8 {0, 1} of the same shape.

    Raises:
        ValueError: a threshold or probabilities out of range, NaN included, or an unknown rule.

    Source: Kolarik 2020, section 3.2; the released rule from its `visualise_predicitons`.
    """
    probabilities = _checked(probabilities)
    if not isinstance(of_256, int | float | np.number) or not _OF_256.holds(of_256):
        raise ValueError(f"of_256={of_256!r}: {_OF_256.sentence}.")
    if highest is not None and not (isinstance(highest, int | float | np.number) and 0 <= highest <= 1 + _AVERAGED):
        raise ValueError(f"highest={highest!r}: a number from 0 to 1 is needed.")
    check_choice("rule", rule, ("absolute", "released"), ValueError)
    if rule == "absolute":
        return (probabilities * np.float32(256) > of_256).astype(np.uint8)
    levels = (np.clip(probabilities, 0, 1) * np.float32(255)).astype(np.uint8)
    top = levels.max(initial=0) if highest is None else int(np.float32(min(highest, 1)) * np.float32(255))
    limit = int(top // (256 / of_256)) if of_256 else 0
    return (levels > limit).astype(np.uint8)


def _checked(probabilities: np.ndarray) -> np.ndarray:
    """An array of probabilities; a `ValueError` if these are others, such as logits or NaN."""
    probabilities = numbers_of(probabilities, "The probabilities")
    least, most = (probabilities.min(), probabilities.max()) if probabilities.size else (0, 1)
    if not (least >= -_AVERAGED and most <= 1 + _AVERAGED):  # NaN is neither
        raise ValueError(f"The probabilities are from {least} to {most}; numbers from 0 to 1 are needed.")
    return probabilities


TARGETS: dict[str, type[Targets]] = {made.name: made for made in (Binary, Classes, Regions)}
