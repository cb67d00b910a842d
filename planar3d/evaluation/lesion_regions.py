"""In which of McDonald's regions lesions lie, told without registration: from the scan's own fluid and outline."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage, spatial

from planar3d.evaluation.lesion_table import Lesion, lesion_labels
from planar3d.scans.head import Head, find_head, largest_part, on_coarse_grid
from planar3d.scans.volume import Scan

UNKNOWN = "unknown"
_STEP = (1.0, 1.0, 2.5)  # mm between the voxels looked at: right, anterior, superior
_SCALP = 10.0  # mm that a whole head has around its brain
_BRAIN_ML = (700, 2200)  # of an outline that may be a brain's
_FLUID, _TISSUE = 0.75, 0.5  # of the grey level in the middle: darker is fluid, and bone or air
_OUTER = 4.0  # mm: the radius by which scalp and brain are told apart
# Fluid is a ventricle's where it lies deep, mm below the outline in its slice; near the middle, mm; mm below the
# vertex; and in parts of so many ml.
_DEEP, _ASIDE, _HEIGHTS, _PART_ML = 25.0, 40.0, (25.0, 95.0), 0.1
_VENTRICLES_ML = 2.0  # in all; where less is found, nothing is known of them
_LOWEST = 100.0  # mm below the vertex: what is higher tells where the middle is
_POSTERIOR, _CEREBELLAR, _MEDIAL = 5.0, 35.0, 20.0  # mm behind the middle, and aside of it
_FAR = 10.0  # mm, beyond all limits
_CUT = 40.0  # mm of a head that may be missing at its top; how much is, its outline tells


class _Limits(NamedTuple):
    """mm up to which a lesion is at the ventricles and at the cortex, and below the brain's vertex, infratentorial."""

    ventricles: float = 3.0
    cortex: float = 5.0
    tentorium: float = 90.0


_DOUBT = _Limits(2.0, 2.0, 10.0)  # how far off each may be


def name_regions(
    lesions: Sequence[Lesion], scan: Scan, mask: Scan, ventricles: np.ndarray | None = None
) -> list[Lesion]:
    """Say of each lesion in which region it lies: infratentorial, periventricular, juxtacortical, deep, or unknown.

    A lesion is periventricular within 3 mm of the ventricles, juxtacortical within 5 mm of the brain's outline, and
    deep elsewhere; infratentorial comes first. It is sure (`region_sure`) where limits 2 mm further or nearer, for the
    tentorium 10 mm, would not change it.

    Args:
        lesions: `lesion_table` of the mask.
        mask: on the scan's grid.
        ventricles: bool, on the scan's grid, where a model gives them; else they are looked for.

    Source: Thompson et al. 2018 (McDonald criteria 2017); 3 mm as Kim et al. 2008.
    """
    if not lesions:
        return []
    head = find_head(scan, _STEP)
    scalp = 0.0 if head.is_extracted() else _SCALP
    brain = head.inside if not scalp else _brain(head)
    cut = head.missing()["superior"]
    if not (_BRAIN_ML[0] < head.ml(brain) < _BRAIN_ML[1] and cut < _CUT):
        return [lesion._replace(region=UNKNOWN) for lesion in lesions]
    below = head.below_vertex + cut - scalp
    numbers, places = on_coarse_grid(lesion_labels(mask), scan, head)
    middle = ndimage.center_of_mass(head.inside & (below < _LOWEST))
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
    limits = [_Limits(), *(_Limits(*np.add(_Limits(), np.multiply(_DOUBT, sign))) for sign in (-1, 1))]
    named = []
    for lesion, distances in zip(lesions, nearest.T, strict=True):
        region, *otherwise = [_region(_Limits(*distances), each, found) for each in limits]
        named.append(
            lesion._replace(region=region, region_sure=None if region == UNKNOWN else {*otherwise} == {region})
        )
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
    """What is inside the skull of a whole head, with its holes filled."""
    tissue = (head.grey > _TISSUE * head.tissue) & (head.depth > _SCALP / 2)
    core = largest_part(head.distance_to(~tissue) > _OUTER)
    return ndimage.binary_fill_holes(head.distance_to(core) <= _OUTER)


def _distances(places: np.ndarray, marked: np.ndarray, head: Head) -> np.ndarray:
    """mm from each place to the nearest marked voxel; infinite beyond what is asked for."""
    each, of = np.unique(places, axis=0, return_inverse=True)
    tree = spatial.KDTree(np.argwhere(marked) * head.spacing)
    return tree.query(each * head.spacing, distance_upper_bound=_FAR)[0][of.ravel()]


def _ventricles(head: Head, below: np.ndarray, deep: float, middle: float) -> np.ndarray:
    """Dark fluid where the lateral ventricles may be."""
    aside = np.abs(np.arange(head.grey.shape[0]) - middle) * head.spacing[0]
    within = (aside < _ASIDE)[:, None, None] & (below > _HEIGHTS[0]) & (below < _HEIGHTS[1])
    parts, _ = ndimage.label((head.grey < _FLUID * head.tissue) & (head.depth > deep) & within)
    large = np.bincount(parts.ravel()) * head.voxel_mm3 / 1000 > _PART_ML
    large[0] = False
    return large[parts]
