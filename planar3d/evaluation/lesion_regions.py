"""The McDonald regions of lesions, without registration, from the scan's own fluid and outline."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage, spatial

from planar3d.evaluation.lesion_table import Lesion, lesion_labels
from planar3d.scans.head import Head, counts_along, filled, find_head, largest_part, on_coarse_grid
from planar3d.scans.volume import Scan

REGIONS, UNKNOWN = ("infratentorial", "periventricular", "juxtacortical", "deep"), "unknown"
_STEP = (1.0, 1.0, 2.5)  # mm between sampled voxels: right, anterior, superior
_SCALP = 10.0  # mm around the brain of a whole head
_BRAIN_ML = (700, 2200)  # of a plausible outline of a brain
_FLUID, _TISSUE = 0.75, 0.5  # of the grey level in the center: darker is fluid; bone or air
_OUTER = 4.0  # mm: the radius that separates scalp from brain
# Ventricular fluid: depth in mm below the outline in its slice; distance in mm from the midline; mm below the vertex;
# and least volume of a component in ml.
_DEEP, _ASIDE, _HEIGHTS, _PART_ML = 25.0, 40.0, (25.0, 95.0), 0.1
_VENTRICLES_ML = 2.0  # in total; with less, the ventricles count as not found
_LOWEST = 100.0  # mm below the vertex: the part above defines the center
_POSTERIOR, _CEREBELLAR, _MEDIAL = 5.0, 35.0, 20.0  # mm behind the center, and lateral to it
_FAR = 10.0  # mm, beyond all limits
_CUT = 40.0  # mm of a head that may be missing at its top, as estimated from its outline


class _Limits(NamedTuple):
    """mm up to which a lesion is at the ventricles or the cortex, and mm below the vertex to the tentorium."""

    ventricles: float = 3.0
    cortex: float = 5.0
    tentorium: float = 90.0


_DOUBT = _Limits(2.0, 2.0, 10.0)  # uncertainty of each


def name_regions(
    lesions: Sequence[Lesion], scan: Scan, mask: Scan, ventricles: np.ndarray | None = None
) -> list[Lesion]:
    """Add the region of each lesion: infratentorial, periventricular, juxtacortical, deep, or unknown.

    A lesion is periventricular within 3 mm of the ventricles, juxtacortical within 5 mm of the brain's outline, and
    deep elsewhere; infratentorial takes precedence. The region is certain (`region_sure`) if shifting the limits by
    2 mm, for the tentorium 10 mm, would not change it.

    Args:
        lesions: `lesion_table` of the mask.
        mask: on the scan's grid.
        ventricles: bool, on the scan's grid, from a model; default: detected.

    Source: Thompson et al. 2018 (McDonald criteria 2017); 3 mm as Kim et al. 2008.
    """
    if not lesions:
        return []
    head = find_head(scan, _STEP)
    scalp = 0.0 if head.is_extracted else _SCALP
    brain = head.inside if not scalp else _brain(head)
    cut = head.missing()["superior"]
    if not (_BRAIN_ML[0] < head.ml(brain) < _BRAIN_ML[1] and cut < _CUT):
        return [lesion._replace(region=UNKNOWN) for lesion in lesions]
    below = head.below_vertex + cut - scalp
    numbers, places = on_coarse_grid(lesion_labels(mask), scan, head)
    upper = head.inside & (below < _LOWEST)
    middle = [np.average(np.arange(n), weights=counts_along(upper, axis)) for axis, n in enumerate(upper.shape[:2])]
    right, anterior = ((places[:, axis] - middle[axis]) * head.spacing[axis] for axis in (0, 1))
    behind = (anterior < -_CEREBELLAR) | ((anterior < -_POSTERIOR) & (np.abs(right) < _MEDIAL))
    fluid = np.zeros(brain.shape, bool)
    if ventricles is None:
        fluid = _ventricles(head, below, _DEEP + scalp, middle[0])
    else:
        fluid[tuple(on_coarse_grid(ventricles, scan, head)[1].T)] = True
    found = head.ml(fluid) > (_VENTRICLES_ML if ventricles is None else 0)
    measures = {
        "ventricles": _distances(places, fluid, head),
        "cortex": _distances(places, ndimage.binary_dilation(brain) & ~brain, head),
        "tentorium": np.where(behind, -below[places[:, 2]], 0.0),  # the lower, the less
    }
    nearest = np.array([ndimage.minimum(each, numbers, range(1, len(lesions) + 1)) for each in measures.values()])
    limits = [_Limits(*np.add(_Limits(), np.multiply(_DOUBT, sign))) for sign in (0, -1, 1)]
    named = []
    for lesion, distances in zip(lesions, nearest.T, strict=True):
        region, *otherwise = [_region(_Limits(*distances), each, found) for each in limits]
        sure = None if region == UNKNOWN else {*otherwise} == {region}
        named.append(lesion._replace(region=region, region_sure=sure))
    return named


def _region(at: _Limits, limits: _Limits, found: bool) -> str:
    if -at.tentorium > limits.tentorium:
        return "infratentorial"
    if found and at.ventricles <= limits.ventricles:
        return "periventricular"
    if at.cortex <= limits.cortex:
        return "juxtacortical"
    return "deep" if found else UNKNOWN


def _brain(head: Head) -> np.ndarray:
    """The inside of a whole head's skull, with holes filled."""
    tissue = (head.grey > _TISSUE * head.tissue) & (head.depth > _SCALP / 2)
    core = largest_part(~head.within(~tissue, _OUTER))
    return filled(head.within(core, _OUTER))


def _distances(places: np.ndarray, marked: np.ndarray, head: Head) -> np.ndarray:
    """mm from each position to the nearest marked voxel; infinite beyond the limit."""
    each, of = np.unique(np.ravel_multi_index(places.T, marked.shape), return_inverse=True)
    tree = spatial.KDTree(np.argwhere(marked) * head.spacing)
    voxels = np.stack(np.unravel_index(each, marked.shape), axis=-1) * head.spacing
    return tree.query(voxels, distance_upper_bound=_FAR, workers=-1)[0][of]


def _ventricles(head: Head, below: np.ndarray, deep: float, middle: float) -> np.ndarray:
    """Dark fluid in plausible positions of the lateral ventricles."""
    aside = np.abs(np.arange(head.grey.shape[0]) - middle) * head.spacing[0]
    within = (aside < _ASIDE)[:, None, None] & (below > _HEIGHTS[0]) & (below < _HEIGHTS[1])
    parts, _ = ndimage.label((head.grey < _FLUID * head.tissue) & (head.depth > deep) & within)
    large = np.bincount(parts.ravel()) * head.voxel_mm3 / 1000 > _PART_ML
    large[0] = False
    return large[parts]
