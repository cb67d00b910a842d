"""Scores of one predicted lesion mask against its reference, and their summary over scans."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from planar3d.evaluation.lesions import binary_pair, lesion_scores, ratio
from planar3d.scans.geometry import Grid, voxel_axes, voxel_mm3
from planar3d.scans.head import box_of
from planar3d.wording import score_text


class Measure(NamedTuple):
    """Name, unit and format of a score."""

    label: str
    unit: str
    digits: int

    @property
    def heading(self) -> str:
        """The label with its unit, if any."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


# Every score of a scan, in the order of `score_scan` and of the columns of scores.csv.
MEASURES = {
    "dice": Measure("Dice", "", 3),
    "sensitivity": Measure("Sensitivity", "", 3),
    "specificity": Measure("Specificity", "", 5),
    "precision": Measure("Precision", "", 3),
    "reference_ml": Measure("Reference volume", "ml", 2),
    "prediction_ml": Measure("Predicted volume", "ml", 2),
    "lesion_sensitivity": Measure("Lesion sensitivity", "", 3),
    "lesion_precision": Measure("Lesion precision", "", 3),
    "lesion_f1": Measure("Lesion F1", "", 3),
    "reference_lesions": Measure("Reference lesions", "", 0),
    "detected_lesions": Measure("Detected lesions", "", 0),
    "prediction_lesions": Measure("Predicted lesions", "", 0),
    "assd_mm": Measure("Average symmetric surface distance", "mm", 2),
    "hd95_mm": Measure("95 % Hausdorff distance", "mm", 2),
}


def score_scan(reference: np.ndarray, prediction: np.ndarray, spacing: Grid) -> dict[str, float]:
    """Score one predicted mask against its reference.

    - dice: 2·TP / (|reference| + |prediction|) (Kolarik 2020, eq. 4), undefined if both masks are empty;
    - sensitivity: TP / (TP + FN) (eq. 6); specificity: TN / (TN + FP); precision: TP / (TP + FP);
    - reference_ml, prediction_ml: volumes in ml;
    - lesion_sensitivity, lesion_precision, lesion_f1 and the counts: `lesion_scores` with the challenge's settings;
    - assd_mm: the mean of all distances between surfaces, in both directions, hd95_mm their 95th percentile.

    Undefined scores (0/0) and distances to an empty mask are nan.

    Args:
        reference: the expert's mask, (i, j, k), of {0, 1} within 0.001.
        prediction: the mask to score, on the same grid.
        spacing: the voxel size in mm for each axis, or the grid's affine (4×4 or its 3×3), which sheared grids need;
            for a resampled grid the effective voxel size.

    Raises:
        ScanError: the masks are not two volumes of {0, 1} on one grid, or the spacing does not fit.
    """
    reference, prediction = binary_pair(reference, prediction)
    true_positive = int(np.count_nonzero(reference & prediction))
    lesion, predicted = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    healthy = reference.size - lesion
    voxel_ml = voxel_mm3(spacing) / 1000
    distances = np.concatenate(directed_distances(reference, prediction, spacing))
    return {
        "dice": dice(reference, prediction),
        "sensitivity": ratio(true_positive, lesion),
        "specificity": ratio(healthy - (predicted - true_positive), healthy),
        "precision": ratio(true_positive, predicted),
        "reference_ml": lesion * voxel_ml,
        "prediction_ml": predicted * voxel_ml,
        **{name: score for name, score in lesion_scores(reference, prediction, spacing).items() if name in MEASURES},
        "assd_mm": float(distances.mean()) if distances.size else math.nan,
        "hd95_mm": float(np.percentile(distances, 95)) if distances.size else math.nan,
    }


def dice(reference: np.ndarray, prediction: np.ndarray) -> float:
    """The Dice coefficient of boolean masks; nan if both are empty."""
    both, first, second = (int(np.count_nonzero(mask)) for mask in (reference & prediction, reference, prediction))
    return ratio(2 * both, first + second)


def directed_distances(
    reference: np.ndarray, prediction: np.ndarray, spacing: Grid, beyond: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances in mm from each surface voxel of the reference to the prediction's surface, and back.

    A mask's surface is removed by an erosion with face neighbours; for masks of a single slice it is the contour.
    Both arrays are empty if a mask is empty or has no surface.

    Args:
        reference, prediction: boolean masks on one grid, (i, j, k).
        beyond: whether a mask that reaches the volume's border continues beyond it, so that it has no surface there.
    """
    # The border of the box is not the volume's, so one more voxel is kept around the masks where it matters.
    box, axes = box_of(reference | prediction), voxel_axes(spacing)
    box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box) if beyond else box
    neighbours = ndimage.generate_binary_structure(3, 1)
    for axis, length in enumerate(reference.shape):
        if length == 1:
            np.moveaxis(neighbours, axis, 0)[[0, 2]] = False
    surfaces = [
        np.argwhere(mask[box] & ~ndimage.binary_erosion(mask[box], neighbours, border_value=beyond)) @ axes.T
        for mask in (reference, prediction)
    ]
    if not all(len(surface) for surface in surfaces):
        return np.empty(0), np.empty(0)
    # A search among surface voxels is far cheaper than two distance maps of the whole head. SciPy's threads would go on
    # after an interrupt, and write to memory that is then free.
    there, back = (KDTree(target).query(source)[0] for source, target in (surfaces, surfaces[::-1]))
    return there, back


@dataclass(frozen=True)
class Summary:
    """A mean and its standard deviation; nan if undefined.

    It is over `count` of `total` values: undefined scores (nan) are excluded, which `str` shows.
    """

    mean: float
    sd: float = math.nan
    count: int = 0
    total: int = 0
    digits: int = 3

    def __str__(self) -> str:
        text = score_text(self.mean, self.digits)
        if not math.isnan(self.sd):
            text += f" ± {self.sd:.{self.digits}f}"
        return text if self.count == self.total else f"{text} ({self.count} of {self.total})"


def summarize(values: Iterable[float], digits: int = 3) -> Summary:
    """Return mean and sample standard deviation (n − 1) of the defined values; one value has no deviation.

    Means of counts have one decimal: where two of five scans have a lesion, 0.4 and not 0.
    """
    given = list(values)
    defined = [value for value in given if not math.isnan(value)]
    mean = float(np.mean(defined)) if defined else math.nan
    sd = float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan
    return Summary(mean, sd, len(defined), len(given), max(digits, 1))
