"""The measures of each challenge, by name. A new set of measures is a function and one line in the table."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from planar3d.evaluation.lesions import binary_pair, ratio
from planar3d.evaluation.scores import MEASURES, Measure, dice, directed_distances, score_scan
from planar3d.scans.geometry import Grid
from planar3d.scans.labels import Targets
from planar3d.scans.slice_folders import ORGANS

# CHAOS gives a measure no points from these values on; for Dice, this is the least value with points.
_MOST = {"ravd_percent": 5.0, "assd_mm": 15.0, "mssd_mm": 60.0}
_LEAST_DICE = 0.8
# Distance for a region in only one label map, as in BraTS 2020: the diagonal of the challenge's grid.
MISSED_MM = 373.12866


class MeasureSet(NamedTuple):
    """The measures of a challenge."""

    measures: Mapping[str, Measure]  # those not in `score_scan`
    main: tuple[str, ...]  # shown in short tables
    # Computes them from the arguments and scores of `score_scan`, and replaces scores of the same name.
    score: Callable[[Mapping[str, float], np.ndarray, np.ndarray, Grid], dict[str, float]]
    note: str  # treatment of empty masks, for tables
    # Labels that references of a group of cases never have; targets made of them are not scored there.
    unmarked: Mapping[str, frozenset[int]] = MappingProxyType({})


def score_targets(
    targets: Targets, reference: np.ndarray, prediction: np.ndarray, spacing: Grid, group: str = ""
) -> dict[str, dict[str, float]]:
    """Score every target by name: the scores of `score_scan`, and the targets' set of measures.

    Arguments as in `score_scan`, but label maps. Targets that never occur in references of the case's group get nan.
    """
    found, measures = targets.masks(prediction), MEASURE_SETS[targets.measures]
    scores = dict[str, dict[str, float]]()
    for name, mask in targets.masks(reference).items():
        scores[name] = score_scan(mask, found[name], spacing)
        scores[name] |= measures.score(scores[name], mask, found[name], spacing)
    unmarked = measures.unmarked.get(group, frozenset())
    for name, labels in targets.scored.items():
        if not unmarked.isdisjoint(labels):
            scores[name] = dict.fromkeys(scores[name], math.nan)
    return scores


def score_region(scores: Mapping[str, float]) -> dict[str, float]:
    """Score a region as BraTS does, by its scores of `score_scan` (Dice as in Wacker 2019, eq. 3).

    If both masks are empty, dice is 1 and hd95_mm 0; if one is, hd95_mm is `MISSED_MM`.

    Source: nnU-Net's evaluation of BraTS 2020, after the challenge's server.
    """
    if math.isnan(scores["dice"]):
        return {"dice": 1.0, "hd95_mm": 0.0}
    return {"dice": scores["dice"], "hd95_mm": MISSED_MM if math.isnan(scores["hd95_mm"]) else scores["hd95_mm"]}


def score_organ(reference: np.ndarray, prediction: np.ndarray, spacing: Grid) -> dict[str, float]:
    """Score an organ as CHAOS does; arguments as in `score_scan`.

    - ravd_percent: 100 · | |reference| − |prediction| | / |reference|;
    - assd_mm, mssd_mm: mean and maximum of all distances between surfaces, in both directions; a mask has no surface at
      the border of the volume;
    - dice_points, ravd_points, assd_points, mssd_points: from 0 to 100, 0 beyond a limit and for undefined measures;
      score: their mean. All are undefined if both masks are empty.

    Source: the challenge's evaluation (github.com/emrekavur/CHAOS-evaluation); Kavur et al. 2021 for the points.
    """
    reference, prediction = binary_pair(reference, prediction)
    voxels, predicted = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    share = dice(reference, prediction)
    distances = np.concatenate(directed_distances(reference, prediction, spacing, beyond=True))
    values = {
        "ravd_percent": 100 * ratio(abs(voxels - predicted), voxels),
        "assd_mm": float(distances.mean()) if distances.size else math.nan,
        "mssd_mm": float(distances.max()) if distances.size else math.nan,
    }
    none = 0.0 if voxels or predicted else math.nan
    points = {"dice_points": 100 * share if share >= _LEAST_DICE else none}
    for name, most in _MOST.items():
        points[f"{name.split('_')[0]}_points"] = 100 * (1 - values[name] / most) if values[name] < most else none
    return {**values, **points, "score": sum(points.values()) / len(points)}


def score_contour(reference: np.ndarray, prediction: np.ndarray, spacing: Grid) -> dict[str, float]:
    """Score a region of an echocardiogram, (i, j, 1), as CAMUS does; arguments as in `score_scan`.

    - mad_mm: the mean distance between contours, averaged over both directions;
    - hd_mm: the maximum distance in either direction (the Hausdorff distance).

    Source: Messaoudi 2023, eqs. 2–4; Leclerc et al. 2019.
    """
    there, back = directed_distances(*binary_pair(reference, prediction), spacing)
    if not there.size:
        return {"mad_mm": math.nan, "hd_mm": math.nan}
    return {"mad_mm": float((there.mean() + back.mean()) / 2), "hd_mm": float(max(there.max(), back.max()))}


_UNDEFINED = (
    "A score that would divide by 0, or a distance to an empty mask, is undefined and excluded from its mean, as "
    "“(4 of 5)” shows."
)
_MISSED = "A missed target therefore lowers Dice, sensitivities and lesion F1, but not precisions and distances."
_LONG = ("dice", "hd95_mm", "sensitivity", "precision")
MEASURE_SETS = {
    "lesions": MeasureSet({}, _LONG, lambda scores, *given: {}, f"{_UNDEFINED} {_MISSED}"),
    "brats": MeasureSet(
        {},
        _LONG,
        lambda scores, *given: score_region(scores),
        "A target absent from both reference and prediction counts as Dice 1 and a 95 % Hausdorff distance of 0 mm; a "
        f"target in only one of them counts as Dice 0 and 373.1 mm, as in BraTS 2020. For other scores: {_UNDEFINED}",
    ),
    "chaos": MeasureSet(
        {
            "ravd_percent": Measure("Relative absolute volume difference", "%", 2),
            "mssd_mm": Measure("Maximum symmetric surface distance", "mm", 2),
            "dice_points": Measure("Points for Dice", "of 100", 1),
            "ravd_points": Measure("Points for volume", "of 100", 1),
            "assd_points": Measure("Points for the average distance", "of 100", 1),
            "mssd_points": Measure("Points for the maximum distance", "of 100", 1),
            "score": Measure("Score", "of 100", 1),
        },
        ("score", "dice", "ravd_percent", "assd_mm", "mssd_mm"),
        lambda scores, *given: score_organ(*given),
        f"{_UNDEFINED} An organ in only one of reference and prediction gets 0 points. Cases of the group CT are "
        "scored for the liver only, as their references have no other organ.",
        {"CT": frozenset(ORGANS.values()) - {ORGANS["liver"]}},
    ),
    "camus": MeasureSet(
        {"mad_mm": Measure("Mean absolute distance", "mm", 2), "hd_mm": Measure("Hausdorff distance", "mm", 2)},
        ("dice", "mad_mm", "hd_mm"),
        lambda scores, *given: score_contour(*given),
        _UNDEFINED,
    ),
}
# The measures of all sets, and of every scan.
ALL_MEASURES = MEASURES | {name: measure for each in MEASURE_SETS.values() for name, measure in each.measures.items()}
