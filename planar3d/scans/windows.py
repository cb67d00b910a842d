"""Windows of slices: cut, composed and thresholded (Kolarik 2020, section 3.2 and eq. 1)."""

from typing import Any

import numpy as np

from planar3d.scans.composition import compose_tiles, cut_tile
from planar3d.sections import check_choice
from planar3d.wording import counted

# Grey levels by unit of the network's input.
INPUT_SCALE = 128
_ROUNDING = 0.01  # of probabilities that were averaged or interpolated in low precision


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
        (windows, depth, …): a read-only view if the windows end with the volume; otherwise a view of a copy that is
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
        (slices, …). For depth 16 and stride 8: slices 1-12 of the first window, 5-12 of each middle one, 5-16 of the
        last (counted from 1).

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


def threshold(
    probabilities: np.ndarray, of_256: float = 16, rule: str = "absolute", highest: float | None = None
) -> np.ndarray:
    """Binarize lesion probabilities: 1 where p · 256 > t.

    Args:
        probabilities: floats in [0, 1], any shape.
        of_256: the threshold t, out of 256; the paper's is 16.
        rule: `"absolute"`; or `"released"`, relative to the volume's own maximum as in the released code:
            q = uint8(255 · p), 1 where q > max(q) // (256 / t), which is max(q) // 16 for t = 16.
        highest: the volume's maximum, for `"released"` if the probabilities are only a part of the volume.

    Returns:
        uint8 {0, 1} of the same shape.

    Raises:
        ValueError: a threshold or probabilities out of range, NaN included, or an unknown rule.

    Source: Kolarik 2020, section 3.2; the released rule from its `visualise_predicitons`.
    """
    probabilities = _numbers(probabilities, "The probabilities")
    if not isinstance(of_256, int | float | np.number) or not 0 <= of_256 <= 256:
        raise ValueError(f"of_256={of_256!r}: a threshold from 0 to 256 is needed.")
    if highest is not None and not (isinstance(highest, int | float | np.number) and 0 <= highest <= 1 + _ROUNDING):
        raise ValueError(f"highest={highest!r}: a number from 0 to 1 is needed.")
    least, most = (probabilities.min(), probabilities.max()) if probabilities.size else (0, 1)
    if not (least >= -_ROUNDING and most <= 1 + _ROUNDING):  # NaN is neither
        raise ValueError(f"The probabilities are from {least} to {most}; numbers from 0 to 1 are needed.")
    check_choice("rule", rule, ("absolute", "released"), ValueError)
    if rule == "absolute":
        return (probabilities * np.float32(256) > of_256).astype(np.uint8)
    levels = (probabilities * np.float32(255)).astype(np.uint8)
    top = levels.max(initial=0) if highest is None else int(np.float32(highest) * np.float32(255))
    limit = int(top // (256 / of_256)) if of_256 else 0
    return (levels > limit).astype(np.uint8)


def _numbers(values: Any, what: str) -> np.ndarray:
    """An array of real numbers; a `ValueError` if the values are none, such as a scan with its geometry."""
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


def checked_prepared(voxels: Any) -> np.ndarray:
    """An array of finite voxels with the four axes of a prepared scan; a `ValueError` if it is none."""
    voxels = _numbers(voxels, "The voxels")
    if voxels.ndim != 4 or not voxels.size:
        advice = " Add an axis for the one image: voxels[..., None]." if voxels.ndim == 3 else ""
        raise ValueError(
            f"The voxels have the shape {voxels.shape}, but (slices, rows, cols, images) of a prepared scan are "
            f"needed.{advice}"
        )
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise ValueError("The voxels have NaN or infinity; replace them first, e.g. with numpy.nan_to_num.")
    return voxels


def network_input(windows: np.ndarray, channels: int = 3) -> np.ndarray:
    """Convert 8-bit windows to the network's input: v / 128 - 1 in [-1, 1), copied to the channels of ImageNet kernels.

    From uint8 (…, depth, rows, cols, 1) to float32 (…, depth, rows, cols, channels), the last axis a view.

    Source: Kolarik 2020, section 3.2; the divisor from the released code.
    """
    if windows.shape[-1] != 1:
        raise ValueError(
            f"The voxels have the shape {windows.shape}, but a last axis for their one image is needed. Add it: "
            "voxels[..., None]."
        )
    scaled = np.asarray(windows, dtype=np.float32) / np.float32(INPUT_SCALE) - np.float32(1)
    return np.broadcast_to(scaled, (*scaled.shape[:-1], channels))


def _check(depth: int, stride: int) -> None:
    if not all(isinstance(number, int | np.integer) for number in (depth, stride)):
        raise ValueError(f"depth={depth!r}, stride={stride!r}: whole numbers of slices are needed.")
    if not 0 < stride <= depth:
        raise ValueError(f"stride={stride}: it must be from 1 to the window's depth, {depth}.")
    if (depth - stride) % 2:
        raise ValueError(
            f"depth={depth}, stride={stride}: their difference must be even, for a center of whole slices."
        )
