"""Grids in space: the edges and the volume of a voxel, and the distance between two grids."""

from collections.abc import Sequence

import numpy as np

from planar3d.errors import ScanError

FLAT = 0.01  # of a box with the same edges; a voxel has less volume only if axes nearly coincide
_RIGHT_ANGLE = 1e-5  # cosine; headers store float32, and DICOM six digits


def voxel_axes(grid: Sequence[float] | np.ndarray) -> np.ndarray:
    """The axes of a voxel in mm as the columns of a triangular 3×3, up to a rotation of all of them.

    Voxel indices (i, j, k) times this matrix are positions with correct distances, on sheared grids as well.

    Args:
        grid: the voxel's edges in mm if its axes are orthogonal; else the grid's affine, 4×4 or its 3×3.

    Raises:
        ScanError: lengths that are not positive and finite, or axes that do not span space.
    """
    try:
        given = np.asarray(grid, dtype=float)
    except (TypeError, ValueError):
        given = np.asarray(str(grid))
    lengths_alone = given.shape == (3,)
    axes = np.diag(given) if lengths_alone else given[:3, :3] if given.shape in ((3, 3), (4, 4)) else np.zeros((3, 3))
    if not np.isfinite(axes).all() or _is_flat(axes) or (lengths_alone and given.min() <= 0):
        raise ScanError(
            f"The voxel spacing is {given.tolist()}; three positive lengths in mm are needed, or an affine whose axes "
            "span space."
        )
    lengths = np.linalg.norm(axes, axis=0)
    cosines = (axes / lengths).T @ (axes / lengths)
    if np.abs(cosines - np.eye(3)).max() < _RIGHT_ANGLE:
        return np.diag(lengths)
    _, triangle = np.linalg.qr(axes)
    return triangle


def voxel_mm3(grid: Sequence[float] | np.ndarray) -> float:
    """The volume of a voxel in mm³, from its edges or an affine as in `voxel_axes`."""
    return abs(float(np.prod(np.diagonal(voxel_axes(grid)))))


def is_usable(affine: np.ndarray) -> bool:
    """Whether an affine locates voxels: finite, with axes that span space."""
    return bool(np.isfinite(affine).all()) and not _is_flat(affine[:3, :3])


def corner_shift(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far, in voxels of `affine`, the farthest corner of a (i, j, k) grid moves under the `other` affine."""
    corners = np.array([(i, j, k, 1) for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    moved = corners @ (np.linalg.inv(affine) @ other).T
    return float(np.abs(moved - corners)[:, :3].max())


def _is_flat(axes: np.ndarray) -> bool:
    longest = np.abs(axes).max()
    if not longest > 0:
        return True
    axes = axes / longest  # squares of lengths in a damaged header may overflow
    lengths = np.linalg.norm(axes, axis=0)
    return not lengths.min() > 0 or abs(float(np.linalg.det(axes / lengths))) < FLAT
