"""Tiles cut from a volume, and a prediction composed from them."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np


def _gaussian(length: int) -> np.ndarray:
    """exp(−x² / 2σ²) around the center, σ = length / 8 as in nnU-Net's `compute_gaussian`; above 3e-4 everywhere.

    The weight of a voxel is the product of the weights along its axes.
    """
    return np.exp(-0.5 * ((np.arange(length) - length // 2) / (length / 8)) ** 2)


# By overlap, the weights along an axis of a tile; with "crop", only one tile counts.
WEIGHTS: dict[str, Callable[[int], np.ndarray] | None] = {"crop": None, "average": np.ones, "gaussian": _gaussian}


def cut_tile(
    volume: np.ndarray, starts: Sequence[int], shape: Sequence[int], beyond: str = "air", air: float = 0.0
) -> np.ndarray:
    """Read one tile (*shape, …) of a volume (slices, rows, cols, …) in its type; a view where the tile lies within.

    Starts may be negative, and the tile may extend beyond the volume on every side: `beyond` is `"edge"` or `"air"`, as
    in `Tiles`, and `air` the value of an empty voxel.
    """
    spans = list(zip(starts, shape, volume.shape, strict=False))
    inside = volume[tuple(slice(max(start, 0), start + length) for start, length, _ in spans)]
    outside = [(max(-start, 0), max(start + length - entries, 0)) for start, length, entries in spans]
    if not any(map(any, outside)):
        return inside
    outside += [(0, 0)] * (volume.ndim - len(spans))
    return np.pad(inside, outside, "edge") if beyond == "edge" else np.pad(inside, outside, constant_values=air)


def compose_tiles(
    tiles: Iterable[np.ndarray], starts: Sequence[Sequence[int]], volume: Sequence[int], overlap: str = "crop"
) -> np.ndarray:
    """Compose tiles into a volume (*volume, …) of their type, one at a time; parts beyond the volume are cut off.

    Tiles are joined along the last axis into strips, strips into slabs, and slabs into the volume, so that only one
    strip and one slab are in memory besides the volume. Means are running, m + (x − m) · w / Σw: equal tiles keep their
    value to the last bit, and so does a tile without overlap. Where no tile is, the volume is 0.

    Args:
        tiles: arrays of one shape, the last axis of `starts` changing first; axes behind those are carried along.
        starts: first entries of the tiles along each tiled axis, in order.
        volume: entries along each tiled axis.
        overlap: as in `Tiles`; means need float tiles.

    Source: Kolarik 2020, eq. 1 (`"crop"`); Wacker 2019 (`"average"`).
    """
    return _joined(iter(tiles), starts, volume, overlap, 0)


def _joined(
    tiles: Iterator[np.ndarray], starts: Sequence[Sequence[int]], volume: Sequence[int], overlap: str, axis: int
) -> np.ndarray:
    """The next tiles, joined along this axis and those behind it."""
    if axis == len(starts):
        return next(tiles)
    entries, weights = volume[axis], WEIGHTS[overlap]
    total = np.zeros(entries)
    previous = covered = 0
    for start in starts[axis]:
        tile = _joined(tiles, starts, volume, overlap, axis + 1)
        if start == starts[axis][0]:
            whole = np.zeros((*tile.shape[:axis], entries, *tile.shape[axis + 1 :]), tile.dtype)
            joined = np.moveaxis(whole, axis, 0)
        tile = np.moveaxis(tile, axis, 0)
        first, end = max(start, 0), min(start + len(tile), entries)
        if weights is None:
            first = (previous + len(tile) + start) // 2 if covered else first
        else:
            here = weights(len(tile))[first - start : end - start]
            total[first:end] += here
            share = (here / total[first:end])[: covered - first].astype(tile.dtype)
            met = joined[first:covered]
            met += share.reshape(-1, *[1] * (tile.ndim - 1)) * (tile[first - start : covered - start] - met)
            first = covered
        joined[first:end] = tile[first - start : end - start]
        previous, covered = start, end
    return whole
