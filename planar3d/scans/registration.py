"""Rigid registration of two scans of one head and contrast, by Gauss-Newton steps."""

import numpy as np
from nibabel.affines import from_matvec
from scipy import ndimage
from scipy.spatial.transform import Rotation

from planar3d.errors import ScanError
from planar3d.scans.volume import Scan

_LEVELS_MM = (8.0, 4.0, 3.0)  # distance of compared points, and smoothing of the scans
_STEPS = 30  # at most, at each level
_PROBE = np.array([0.005] * 3 + [0.5] * 3)  # rad and mm, the steps of finite differences
_DONE = 0.01  # of `_PROBE`: smaller steps end a level
_UNLIKE = 1.0  # standard deviations; points that differ by more count little
_AIR = 0.3  # of the mean above air: darker voxels are not compared
_LEAST = 0.5  # least correlation of registered heads; other contrasts have less
ONE_PATIENT = 0.8  # moved and degraded scans of one patient have 0.90 or more, scans of two patients at most 0.70
_COVERED = 0.5  # share of points within the moving scan above which only these are compared


def register(fixed: Scan, moving: Scan) -> tuple[np.ndarray, float]:
    """Find the rigid transformation from one scan of a head to another of the same head and contrast.

    The squared difference of the standardized values is minimized, from coarse to fine, starting with the centers of
    both heads at one position. After the first level, points that differ much, as where a resampled scan is black, have
    little weight (Geman and McClure). The 4×4 leads from world coordinates in mm (right, anterior, superior) of the
    fixed scan to those of the moving scan; the final correlation is second.

    Raises:
        ScanError: a scan has one value everywhere, or registration fails.

    Source: Friston et al. 1995, spatial registration and normalization of images; Reuter et al. 2010, highly accurate
    inverse consistent registration: a robust approach.
    """
    try:
        transform, alike = _found(fixed, moving)
    except np.linalg.LinAlgError:  # no movement changes the compared values, or some are not finite
        transform, alike = np.eye(4), 0.0
    if not alike > _LEAST:
        raise ScanError(
            f"{moving.path or 'The follow-up'} could not be registered to {fixed.path or 'the baseline'}: their "
            f"correlation is {alike:.2f}; more than {_LEAST} is expected. Both must show the same patient and sequence."
        )
    return transform, alike


def _found(fixed: Scan, moving: Scan) -> tuple[np.ndarray, float]:
    centre, other = (_centre(scan) for scan in (fixed, moving))
    moved = np.concatenate([np.zeros(3), other - centre])
    for mm in _LEVELS_MM:
        values, points = _lattice(fixed, mm)
        seen = _smoothed(moving, mm)

        def apart(movement: np.ndarray, weights: np.ndarray, seen=seen, points=points, values=values) -> np.ndarray:
            found = _sampled(seen, moving.affine, _transform(movement, centre), points)
            (mean, sd), (expected, spread) = (_moments(given, weights) for given in (found, values))
            return weights * ((found - mean) / max(sd, 1e-6) * spread + expected - values)

        weights = np.ones(len(values))
        rest = apart(moved, weights)
        for _ in range(_STEPS):
            if mm < _LEVELS_MM[0]:
                weights = 1 / (1 + (rest / weights / _UNLIKE) ** 2)
                rest = apart(moved, weights)
            slopes = [(apart(moved + probe, weights) - rest) / probe.sum() for probe in np.diag(_PROBE)]
            step = np.linalg.lstsq(np.stack(slopes, axis=1), -rest, rcond=None)[0]
            trials = [(moved + step * part, apart(moved + step * part, weights)) for part in (1, 0.3)]
            best, left = min(trials, key=lambda trial: trial[1] @ trial[1])
            if left @ left >= rest @ rest:
                break
            step, moved, rest = best - moved, best, left
            if (np.abs(step) < _DONE * _PROBE).all():
                break
    transform = _transform(moved, centre)
    # Points beyond the moving scan are unknown; they count only if too few others are left.
    inside = np.isfinite(_sampled(seen, moving.affine, transform, points, "constant"))
    compared = inside if inside.mean() > _COVERED else np.ones_like(inside)
    found = _sampled(seen, moving.affine, transform, points[:, compared])
    found, expected = found - found.mean(), values[compared] - values[compared].mean()
    norm = float(np.linalg.norm(found) * np.linalg.norm(expected))
    return transform, float(found @ expected) / norm if norm else 0.0


def _moments(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation with squared weights."""
    mean = np.average(values, weights=weights**2)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=weights**2)))


def _transform(movement: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """4×4 of a rotation around a center (vector in rad) and a translation in mm."""
    rotation = Rotation.from_rotvec(movement[:3]).as_matrix()
    return from_matvec(rotation, centre + movement[3:] - rotation @ centre)


def _centre(scan: Scan) -> np.ndarray:
    """The center of the brighter half of a head, in world coordinates."""
    shown = scan.voxels > scan.voxels.mean()
    if not shown.any():
        raise ScanError(
            f"{scan.path or 'A scan'} has the same value everywhere; a head is expected. Check which file was given."
        )
    place = ndimage.center_of_mass(shown)
    return (scan.affine @ (*place, 1))[:3]


def _smoothed(scan: Scan, mm: float) -> np.ndarray:
    return ndimage.gaussian_filter(scan.voxels.astype(np.float32), mm / 2 / np.array(scan.spacing), mode="nearest")


def _lattice(scan: Scan, mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Standardized values of a smoothed scan, about `mm` apart, and their positions, (4, points)."""
    steps = np.maximum(np.round(mm / np.array(scan.spacing)), 1).astype(int)
    index = np.mgrid[tuple(slice(0, n, step) for n, step in zip(scan.voxels.shape, steps, strict=True))].reshape(3, -1)
    values = _smoothed(scan, mm)[tuple(index)]
    above = values - np.clip(0, values.min(), values.mean())  # air may be stored far from 0
    shown = above >= _AIR * above.mean()
    index, values = index[:, shown], values[shown]
    points = scan.affine @ np.vstack([index, np.ones(index.shape[1])])
    return (values - values.mean()) / max(float(values.std()), 1e-6), points


def _sampled(
    volume: np.ndarray, affine: np.ndarray, way: np.ndarray, points: np.ndarray, mode: str = "nearest"
) -> np.ndarray:
    """Values of a volume at transformed points; beyond it the edge value, or NaN if `constant`."""
    index = (np.linalg.inv(affine) @ way @ points)[:3]
    return ndimage.map_coordinates(volume, index, order=1, mode=mode, cval=np.nan)
