"""The left ventricle's volume from two views, its ejection fraction, and how two measurements of many hearts agree."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

CAVITY, MYOCARDIUM = 1, 2  # labels of CAMUS
_DISKS = 20
_FINER = 4  # parts of a pixel along each axis, so that disks of few pixels are not cut roughly


class Ventricle(NamedTuple):
    """The cavity in one view: mm along its axis, and across it in the middle of each of 20 disks."""

    length: float
    widths: np.ndarray


def left_ventricle(labels: np.ndarray, spacing: Sequence[float]) -> Ventricle:
    """Measure the cavity along the axis from the middle of the valve to the apex.

    The valve is where the cavity borders on something else than the myocardium; the apex lies farthest from its middle.

    Args:
        labels: an image's label map (i, j) or (i, j, 1), cavity 1 and myocardium 2.
        spacing: mm along i and j.

    Returns:
        Lengths that are nan where there is no cavity, no myocardium, or no valve between them.
    """
    labels = labels.reshape(labels.shape[:2])
    cavity, heart = labels == CAVITY, (labels == CAVITY) | (labels == MYOCARDIUM)
    valve = cavity & ndimage.binary_dilation(~heart, border_value=1)
    parts, count = ndimage.label(valve, np.ones((3, 3)))
    if not count or not (labels == MYOCARDIUM).any():
        return Ventricle(np.nan, np.full(_DISKS, np.nan))
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    mm = np.asarray(spacing[:2], float)
    middle = (np.argwhere(largest) * mm).mean(axis=0)
    inside = np.argwhere(np.kron(cavity, np.ones((_FINER, _FINER), bool))) / _FINER * mm
    inside -= (_FINER - 1) / 2 / _FINER * mm  # the centers of a pixel's parts lie around its own
    away = inside - middle
    apex = away[np.argmax((away**2).sum(axis=1))]
    length = float(np.linalg.norm(apex))
    along = away @ apex / length
    pieces, _ = np.histogram(along, bins=_DISKS, range=(0, length))
    return Ventricle(length, pieces * mm.prod() / _FINER**2 / (length / _DISKS))


def biplane_volume(two_chambers: Ventricle, four_chambers: Ventricle) -> float:
    """The volume in ml of 20 elliptic disks, as wide as both views show them, over the longer axis (Simpson's rule).

    The script that CAMUS' organizers published takes the longest axis of both instants for both volumes.
    """
    height = max(two_chambers.length, four_chambers.length) / _DISKS
    return float(np.pi / 4 * height * (two_chambers.widths * four_chambers.widths).sum() / 1000)


def ejection_fraction(diastole: float, systole: float) -> float:
    """The share in % of the volume at end diastole that is ejected until end systole; nan of no volume."""
    return 100 * (diastole - systole) / diastole if diastole > 0 else np.nan


def agreement(reference: Sequence[float], found: Sequence[float]) -> dict[str, float]:
    """How measurements of the same hearts agree, those left out that are undefined in either.

    Returns:
        Pearson's correlation; bias, the mean of found − reference; its standard deviation (n − 1); the mean absolute
        difference. What too few hearts leave undefined is nan.
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
