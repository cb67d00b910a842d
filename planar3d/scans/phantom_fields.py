"""Smooth random fields, and coarse lattices interpolated over a grid, which vary the phantoms."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage


def between_nodes(nodes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Spread `count` positions from the first to the last node: the node before each, and the weight of the next."""
    places = np.linspace(0, nodes - 1, count)
    left = np.minimum(places.astype(int), nodes - 2)
    return left, (places - left).astype(np.float32)


def spread(lattice: np.ndarray, shape: Sequence[int], box: Sequence[slice] | None = None) -> np.ndarray:
    """Interpolate the last axes of a coarse lattice linearly to `shape`, with coinciding corners, or a box of it.

    One axis at a time, many times faster than `scipy.ndimage.zoom`.
    """
    places = [between_nodes(*counts) for counts in zip(lattice.shape[-len(shape) :], shape, strict=True)]
    if box:
        places = [(left[part], share[part]) for (left, share), part in zip(places, box, strict=True)]
        needed: tuple[Any, ...] = (..., *(slice(left[0], left[-1] + 2) for left, _ in places))
        lattice = lattice[needed]
    # The longest copies, along the first axis, come last and are contiguous.
    for axis in reversed(range(-len(shape), 0)):
        left, share = places[axis]
        left, share = left - left[0], share.reshape(-1, *[1] * (-axis - 1))
        lattice = lattice.take(left, axis) * (1 - share) + lattice.take(left + 1, axis) * share
    return lattice


def smooth_noise(rng: np.random.Generator, shape: Sequence[int], sigma: float | Sequence[float]) -> np.ndarray:
    """Draw a smooth random field of zero mean and unit variance, float32; `sigma` in voxels."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return (field - field.mean()) / field.std()
