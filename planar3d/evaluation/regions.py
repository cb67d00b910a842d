"""Scores of regions in a label map, by the rules of the BraTS challenge for regions that a patient does not have."""

import math
from collections.abc import Sequence

import numpy as np

from planar3d.evaluation.lesions import binary_pair, ratio
from planar3d.evaluation.scores import surface_distances
from planar3d.scans.labels import Targets

# The 95 % Hausdorff distance of a region that is in one label map alone, by year: the diagonal of the challenge's grid
# (240 × 240 × 155 voxels of 1 mm), rounded up since 2023; the server of 2018 left it out.
MISSED_MM = {"2018": math.nan, "2020": 373.12866, "2023": 374.0}


def score_regions(
    targets: Targets,
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float] | np.ndarray,
    missed_mm: float = MISSED_MM["2020"],
) -> dict[str, dict[str, float]]:
    """Score each region of a predicted label map against the reference.

    Args:
        targets: says which regions there are.
        reference: the expert's label map, (i, j, k).
        prediction: the label map to judge, on the same grid.
        spacing: the voxel's edges in mm, one per axis, or the grid's affine (4×4 or its 3×3), as a sheared grid needs.
        missed_mm: see `score_region`.

    Returns:
        By the region's name what `score_region` gives.

    Raises:
        ScanError: the label maps are not two volumes on one grid, or the spacing does not fit.
    """
    found = targets.masks(prediction)
    return {name: score_region(m, found[name], spacing, missed_mm) for name, m in targets.masks(reference).items()}


def score_region(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float] | np.ndarray,
    missed_mm: float = MISSED_MM["2020"],
) -> dict[str, float]:
    """Score one region.

    - dice: 2·TP / (|reference| + |prediction|) (Wacker 2019, eq. 3), 1 where both are empty;
    - hd95_mm: the 95th percentile of `surface_distances`, `missed_mm` where one is empty, 0 where both are (nan with a
      `missed_mm` of nan, as in 2018).

    Args:
        reference: the expert's mask, (i, j, k).
        prediction: the mask to judge, on the same grid.
        spacing: as `score_regions` takes it.
        missed_mm: one of `MISSED_MM`, or the diagonal of another grid.

    Source: nnU-Net's evaluation of BraTS 2020, after the challenge's server.
    """
    reference, prediction = binary_pair(reference, prediction)
    voxels, predicted = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    if not voxels and not predicted:
        return {"dice": 1.0, "hd95_mm": 0.0 * missed_mm}
    distances = surface_distances(reference, prediction, spacing)
    return {
        "dice": ratio(2 * int(np.count_nonzero(reference & prediction)), voxels + predicted),
        "hd95_mm": float(np.percentile(distances, 95)) if distances.size else missed_mm,
    }
