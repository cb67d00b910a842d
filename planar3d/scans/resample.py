"""Resampling by matrices: a spline zoom is linear and separable, so it is one matrix product per axis.

The matrices are `scipy.ndimage.zoom` of the identity, including its rounding of coordinates; they depend only on two
lengths and the spline's order. For some lengths (e.g. 360 from 256) scipy rounds the last coordinate beyond the end;
here, mirroring gives the last voxel there, where scipy leaves 0.
"""

import functools

import numpy as np
from scipy import ndimage

from planar3d.pipeline import in_threads

_BLOCK = 16  # rows of a matrix multiplied at once; with more rows, more products are zero
# Multiplications up to which OpenBLAS uses one thread. Its threads synchronize in every product, which on busy cores,
# e.g. with a network, takes a hundred times as long as the work.
_ONE_THREAD = 2**18
_NEGLIGIBLE = 1e-9  # of a weight: below the precision of float32 for a sum of weights near 1


def resample_by_matrices(volume: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    """Resample a volume to a shape as `scipy.ndimage.zoom` does, many times faster, with splines of an order up to 5.

    The first and the last voxels of both grids coincide. Orders from 1 are computed in float32, from float32, and
    differ from scipy only by rounding; order 0 picks the same voxels as scipy, of any type.

    Source: order 2 for scans, Kolarik 2020, section 3.2; order 0 for masks, the released code.
    """
    along = _pick_along if order == 0 else functools.partial(_multiply_along, order=order)
    # The axis that shrinks most is first and the one that grows most is last, which minimizes the work.
    for axis in sorted(range(volume.ndim), key=lambda axis: shape[axis] / volume.shape[axis]):
        if shape[axis] != volume.shape[axis]:
            volume = along(volume, axis, shape[axis])
    return volume


def resample_by_scipy(volume: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    """The same with `scipy.ndimage.zoom` itself, in double precision, as in the released code."""
    return ndimage.zoom(volume, [new / old for new, old in zip(shape, volume.shape, strict=True)], order=order)


RESAMPLINGS = {"matrix": resample_by_matrices, "scipy": resample_by_scipy}


def _multiply_along(volume: np.ndarray, axis: int, length: int, order: int) -> np.ndarray:
    resampled = np.empty((*volume.shape[:axis], length, *volume.shape[axis + 1 :]), np.float32)
    # The axis becomes the second last of a view: (others, axis, others) is a stack of matrices for BLAS, without copy.
    source, target = (np.swapaxes(v, axis, 1) for v in (volume, resampled))

    def multiply(block: tuple[slice, slice, np.ndarray]) -> None:
        rows, columns, weights = block
        width = max(1, _ONE_THREAD // weights.size)
        for start in range(0, source.shape[2], width):
            others = slice(start, start + width)
            np.matmul(weights, source[:, columns, others], out=target[:, rows, others])

    in_threads(multiply, _blocks(volume.shape[axis], length, order))
    return resampled


def _pick_along(volume: np.ndarray, axis: int, length: int) -> np.ndarray:
    nearest = ndimage.zoom(np.arange(volume.shape[axis]), length / volume.shape[axis], order=0, mode="mirror")
    return volume.take(nearest, axis)


@functools.lru_cache(maxsize=64)
def _blocks(old: int, new: int, order: int) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """The (new, old) matrix of an axis in blocks of rows, each with its columns of non-negligible weight.

    A spline's weights decay by a constant factor per voxel, so the matrix is a band around its diagonal.
    """
    matrix = ndimage.zoom(np.eye(old), (new / old, 1), order=order, mode="mirror")
    blocks = []
    for start in range(0, new, _BLOCK):
        rows = matrix[start : start + _BLOCK]
        used = np.flatnonzero((np.abs(rows) > _NEGLIGIBLE).any(axis=0))
        columns = slice(used[0], used[-1] + 1)
        weights = np.ascontiguousarray(rows[:, columns], dtype=np.float32)
        blocks.append((slice(start, start + len(rows)), columns, weights))
    return tuple(blocks)
