"""Ejection fraction and volumes of the left ventricle by Simpson's rule: a run's agreement with the reference."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from planar3d.errors import RunError, ScanError
from planar3d.evaluation.scores import Summary
from planar3d.scans.head import largest_part
from planar3d.scans.layouts.camus import INSTANTS, VIEWS
from planar3d.study.results import Results, read_maps
from planar3d.study.table_format import Row, Table
from planar3d.wording import counted

CAVITY, MYOCARDIUM = 1, 2  # labels of CAMUS
_DISKS = 20
_FINER = 4  # subpixels along each axis, for accurate disks of few pixels
_CORNERS = np.ones((3, 3))  # pixels that share a corner are connected
_KINDS = [f"{view}_{instant}" for instant in INSTANTS for view in VIEWS]


class Ventricle(NamedTuple):
    """The cavity in one view: mm along its axis, and across it at the center of each of 20 disks."""

    length: float
    widths: np.ndarray


def left_ventricle(labels: np.ndarray, spacing: Sequence[float]) -> Ventricle:
    """Measure the cavity along the axis from the center of the valve to the apex.

    The valve is the border of the cavity without myocardium; the apex is the point farthest from its center. Of a
    cavity in several pieces, the largest is measured.

    Args:
        labels: an image's label map (i, j) or (i, j, 1), cavity 1 and myocardium 2.
        spacing: mm along i and j.

    Returns:
        Lengths, nan without a cavity, a myocardium, or a valve between them.
    """
    labels = labels.reshape(labels.shape[:2])
    cavity, heart = largest_part(labels == CAVITY, _CORNERS), (labels == CAVITY) | (labels == MYOCARDIUM)
    valve = cavity & ndimage.binary_dilation(~heart, border_value=1)
    if not valve.any() or not (labels == MYOCARDIUM).any():
        return Ventricle(np.nan, np.full(_DISKS, np.nan))
    mm = np.asarray(spacing[:2], float)
    middle = (np.argwhere(largest_part(valve, _CORNERS)) * mm).mean(axis=0)
    inside = np.argwhere(np.kron(cavity, np.ones((_FINER, _FINER), bool))) / _FINER * mm
    inside -= (_FINER - 1) / 2 / _FINER * mm  # centers of subpixels around the pixel's own
    away = inside - middle
    apex = away[np.argmax((away**2).sum(axis=1))]
    length = float(np.linalg.norm(apex))
    along = away @ apex / length
    pieces, _ = np.histogram(along, bins=_DISKS, range=(0, length))
    return Ventricle(length, pieces * mm.prod() / _FINER**2 / (length / _DISKS))


def biplane_volume(two_chambers: Ventricle, four_chambers: Ventricle) -> float:
    """The volume in ml of 20 elliptic disks with the widths in both views, over the longer axis (Simpson's rule).

    The script published by the organizers of CAMUS uses the longest axis of both instants for both volumes.
    """
    height = max(two_chambers.length, four_chambers.length) / _DISKS
    return float(np.pi / 4 * height * (two_chambers.widths * four_chambers.widths).sum() / 1000)


def ejection_fraction(diastole: float, systole: float) -> float:
    """The share in % of the end-diastolic volume that is ejected until end systole; nan without a volume."""
    return 100 * (diastole - systole) / diastole if diastole > 0 else np.nan


def agreement(reference: Sequence[float], found: Sequence[float]) -> dict[str, float]:
    """The agreement of two measurements of the same hearts, without hearts undefined in either.

    Returns:
        Pearson's correlation; bias, the mean of found − reference; its standard deviation (n − 1); the mean absolute
        difference. Values undefined for too few hearts are nan.
    """
    pairs = np.array([reference, found], float)
    one, other = pairs[:, np.isfinite(pairs).all(axis=0)]
    difference = other - one
    varies = len(one) > 1 and np.ptp(one) > 0 and np.ptp(other) > 0
    return {
        "correlation": float(np.corrcoef(one, other)[0, 1]) if varies else np.nan,
        "bias": float(difference.mean()) if len(one) else np.nan,
        "standard deviation": float(difference.std(ddof=1)) if len(one) > 1 else np.nan,
        "mean absolute difference": float(np.abs(difference).mean()) if len(one) else np.nan,
    }


def ejection_table(results: Results) -> Table:
    """Build a table of correlation, bias, its standard deviation and mean absolute difference, over test patients."""
    ventricles: dict[str, dict[str, tuple[Ventricle, Ventricle]]] = defaultdict(dict)
    unread = []
    for scan in {scan.scan: scan for scan in results.on("native")}.values():
        try:
            _, *maps = read_maps(results.run, scan.scan, scan.fold)
        except (RunError, ScanError) as error:
            unread.append(f"{scan.scan} is excluded: {error}")
            continue
        expert, own = (left_ventricle(labels.voxels, labels.spacing) for labels in maps)
        ventricles[results.run.cases[scan.scan].patient][scan.scan[-len(_KINDS[0]) :]] = expert, own
    complete = [views for views in ventricles.values() if views.keys() >= set(_KINDS)]
    both = [[_measured(*(views[kind][whose] for kind in _KINDS)) for views in complete] for whose in (0, 1)]
    rows = []
    for number, name in enumerate(("EF [%]", "EDV [ml]", "ESV [ml]")):
        pairs = [[figures[number] for figures in each] for each in both]
        count = int(np.isfinite(pairs).all(axis=0).sum())
        cells = {column: Summary(value, np.nan, count, len(complete)) for column, value in agreement(*pairs).items()}
        rows.append(Row(name, cells, grid="native", over="patients"))
    notes = [
        f"Over {counted(complete, 'patient')} with both views at both instants; all volumes by Simpson’s biplane rule "
        "from the label maps. A patient without a volume in the reference or in the prediction is excluded, as “(4 of "
        "5)” shows.",
        "Bias is the mean of prediction − reference, with the standard deviation (n − 1) of these differences; the "
        "correlation is Pearson’s.",
        *unread,
    ]
    return Table("ejection", "Ejection fraction and volumes", tuple(rows[0].cells), rows, notes)


def _measured(
    two_diastole: Ventricle, four_diastole: Ventricle, two_systole: Ventricle, four_systole: Ventricle
) -> tuple[float, float, float]:
    """EF, EDV and ESV of a patient, from the views of two and four chambers in the order of `_KINDS`."""
    diastole = biplane_volume(two_diastole, four_diastole)
    systole = biplane_volume(two_systole, four_systole)
    return ejection_fraction(diastole, systole), diastole, systole
