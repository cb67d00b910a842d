"""Tiles and windows of slices, cut from a volume, and a prediction composed of them (Kolarik 2020, 3.2 and eq. 1)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from planar3d.wording import counted

# Grey levels by unit of the network's input.
INPUT_SCALE = 128


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
            first = max((previous + len(tile) + start) // 2, 0) if covered else first
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


def window_starts(slices: int, depth: int = 16, stride: int = 8) -> range:
    """First slices of the windows that cover a volume of `slices`; 31 of them for 256.

    If the last window would not end with the volume, one more starts within it and extends beyond its end.

    Raises:
        ValueError: depth and stride that cannot be composed, or fewer slices than one window.
    """
    _check(depth, stride)
    if slices < depth:
        raise ValueError(f"The volume has {counted(slices, 'slice')}; windows of {depth} need at least {depth}.")
    return range(0, slices - depth + stride, stride)


def cut_windows(volume: np.ndarray, depth: int = 16, stride: int = 8) -> np.ndarray:
    """Cut a volume into overlapping windows of slices.

    Args:
        volume: (slices, …), at least `depth` slices and any further axes.
        depth: slices of a window.
        stride: slices from one window to the next; depth - stride must be even, 0 < stride <= depth.

    Returns:
        (windows, depth, …), a read-only view if the windows end with the volume; otherwise a view of a copy that is
        padded at its end with the last slice.

    Raises:
        ValueError: wrong depth or stride, or too few slices.

    Source: Kolarik 2020, section 3.2: 31 windows of 16 slices, overlap 8, from 256 slices.
    """
    volume = np.asarray(volume)
    if not volume.ndim:
        raise ValueError(f"A volume (slices, rows, cols) is needed; got {volume.dtype} without axes.")
    starts = window_starts(len(volume), depth, stride)
    whole = cut_tile(volume, [0], [starts[-1] + depth], "edge")
    windows = np.lib.stride_tricks.sliding_window_view(whole, depth, axis=0)[::stride]
    return np.moveaxis(windows, -1, 1)


def compose(windows: np.ndarray, stride: int = 8, slices: int | None = None) -> np.ndarray:
    """Compose overlapping windows into one volume: the center of each, and the outer ends of the first and last.

    Args:
        windows: (windows, depth, …), with any further axes.
        stride: slices from one window to the next, as in `cut_windows`.
        slices: slices of the volume, if the windows reach beyond its end; default: all.

    Returns:
        (slices, …). For depth 16 and stride 8 these are slices 1-12 of the first window, 5-12 of each middle one, and
        5-16 of the last (counted from 1).

    Raises:
        ValueError: wrong stride, or more slices than the windows cover.

    Source: Kolarik 2020, eq. 1.
    """
    windows = np.asarray(windows)
    if windows.ndim < 2 or not len(windows):
        raise ValueError(f"Windows (windows, depth, rows, cols) are needed; got the shape {windows.shape}.")
    depth = windows.shape[1]
    _check(depth, stride)
    starts = range(0, len(windows) * stride, stride)
    covered = starts[-1] + depth
    if slices is not None and (not isinstance(slices, int | np.integer) or not 0 < slices <= covered):
        raise ValueError(
            f"slices={slices}, but {counted(windows, 'window')} of {depth} at stride {stride} give {covered}."
        )
    return compose_tiles(windows, [starts], [covered])[:slices]


def numbers_of(values: Any, what: str) -> np.ndarray:
    """An array of real numbers; a `ValueError` for anything else, such as a scan with its geometry."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        found = f"of type {array.dtype}" if array.ndim else type(values).__name__
        raise ValueError(f"{what} must be an array of numbers; got {found}.")
    return array


def at_least(volume: np.ndarray, depth: int) -> tuple[np.ndarray, slice]:
    """A volume padded to at least `depth` slices by repeating the outermost, and the range of its own slices."""
    before = max(depth - len(volume), 0) // 2
    whole = cut_tile(volume, [-before], [max(depth, len(volume))], "edge")
    return whole, slice(before, before + len(volume))


def checked_prepared(voxels: Any, brightest: float) -> np.ndarray:
    """An array of finite voxels with the four axes of a prepared scan; a `ValueError` for anything else.

    Levels beyond `brightest` are refused where they have such a limit, and those from 0 to 1, as other libraries take.
    """
    voxels = numbers_of(voxels, "The voxels")
    if voxels.ndim != 4 or not voxels.size:
        raise ValueError(
            f"The voxels have the shape {voxels.shape}, but (slices, rows, cols, images) of a prepared scan are "
            "needed; voxels[..., None] adds the axis of one image."
        )
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise ValueError("The voxels have NaN or infinity; replace them first, e.g. with numpy.nan_to_num.")
    if brightest and voxels.dtype != np.uint8:
        low, high = voxels.min(), voxels.max()
        if low < 0 or high > brightest or (voxels.dtype.kind in "fb" and 0 < high <= 1):
            raise ValueError(
                f"The voxels are from {low:g} to {high:g}; grey levels from 0 to {brightest:g} are needed, as "
                "planar3d.prepare returns them."
            )
    return voxels


def network_input(windows: np.ndarray, channels: int = 3) -> np.ndarray:
    """Convert 8-bit windows to the network's input: v / 128 - 1 in [-1, 1), copied to the channels of ImageNet kernels.

    From uint8 (…, depth, rows, cols, 1) to float32 (…, depth, rows, cols, channels), the last axis a view.

    Source: Kolarik 2020, section 3.2; the divisor from the released code.
    """
    if windows.shape[-1] != 1:
        raise ValueError(
            f"The voxels have {counted(windows.shape[-1], 'image')} along their last axis, but 1 is needed. The "
            "axes are (slices, rows, cols, images)."
        )
    scaled = np.asarray(windows, dtype=np.float32) / np.float32(INPUT_SCALE) - np.float32(1)
    return np.broadcast_to(scaled, (*scaled.shape[:-1], channels))


def _check(depth: int, stride: int) -> None:
    if not all(isinstance(number, int | np.integer) for number in (depth, stride)):
        raise ValueError(f"depth={depth!r}, stride={stride!r}: whole numbers of slices are needed.")
    if not 0 < stride <= depth or (depth - stride) % 2:
        raise ValueError(f"depth={depth}, stride={stride}: the stride must be 1 to the depth, and depth - stride even.")
