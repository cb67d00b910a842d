"""Smooth random fields, and coarse lattices stretched over a grid: what makes each phantom another."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def between_nodes(nodes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay `count` places from the first node to the last: the node before each, and the share of the one after."""
    places = np.linspace(0, nodes - 1, count)
    left = np.minimum(places.astype(int), nodes - 2)
    return left, (places - left).astype(np.float32)


def spread(lattice: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Stretch the last axes of a coarse lattice over `shape`, corner on corner and linear between its nodes.

    One axis after the other, which is many times faster than `scipy.ndimage.zoom`.
    """
    for axis in reversed(
        range(-len(shape), 0)
    ):  # the longest copies, along the first axis, come last and are contiguous
        left, share = between_nodes(lattice.shape[axis], shape[axis])
        share = share.reshape(-1, *[1] * (-axis - 1))
        lattice = lattice.take(left, axis) * (1 - share) + lattice.take(left + 1, axis) * share
    return lattice


def smooth_noise(rng: np.random.Generator, shape: Sequence[int], sigma: float | Sequence[float]) -> np.ndarray:
    """Draw a smooth random field of zero mean and unit variance, float32; `sigma` in voxels."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return (field - field.mean()) / field.std()
