"""Grey levels of a scan: raw values over 16 bit to the network's 8 bit, as in the released code."""

import warnings
from pathlib import Path

import numpy as np

from planar3d.errors import Planar3DWarning, ScanError
from planar3d.pipeline import in_threads

_FLOAT16_MAXIMUM = 65504
_FLOAT16_EXACT = 2048  # larger integers are rounded

# Grey level of the head's median (mostly brain): lesions, 1.2 to 1.9 times as bright, and fat stay below 255.
MEDIAN_LEVEL = 100
HEAD_LEVEL = 20  # with such grey levels, voxels above it are not air
_AIR = 0.1  # of the 99.5th percentile; air and the zeros around extracted brains are below
_NOISE = 3.0  # times the 25th percentile; 1 in 100 voxels of noise is above
_NOISIEST = 0.25  # of the 99.5th percentile; dark tissue is above
_NEGATIVE = 0.1  # of voxels, without the surroundings; no scan as acquired has more
_AROUND = 0.1  # of voxels: a value this frequent was set around the brain or the head
_LEAST = 0.1  # percentile
_SAMPLED = 2**21  # voxels sampled for percentiles
_PLANES = 16  # scaled per thread, of a scan's hundreds


def through_float16(raw: np.ndarray, path: Path | None) -> np.ndarray:
    """Round raw values to float16, as the release does, with a warning; a `ScanError` if one is too large for it."""
    largest = float(np.abs(raw).max())
    if largest > _FLOAT16_MAXIMUM:
        raise ScanError(
            f"{path or 'The scan'} has the value {largest:g}, but the recipe 'released' stores raw values as float16, "
            f"up to {_FLOAT16_MAXIMUM}. Use the recipe 'paper', or rescale the scan."
        )
    rounded = raw.astype(np.float16).astype(np.float32)
    if largest > _FLOAT16_EXACT and not np.array_equal(rounded, raw):
        warnings.warn(
            f"{path or 'The scan'}: raw values above {_FLOAT16_EXACT} are rounded to float16, as in the released code.",
            Planar3DWarning,
            stacklevel=3,
        )
    return rounded


def to_16_bit_range(volume: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale a volume from its limits to [0, 65535], float32 and contiguous: 65535 · (volume - low) / (high - low)."""
    scaled, span = np.empty(volume.shape, np.float32), np.float32(high) - np.float32(low)
    # Planes that are contiguous in memory stay in the cache through all steps.
    slowest = int(np.argmax(np.abs(volume.strides)))
    planes, targets = np.moveaxis(volume, slowest, 0), np.moveaxis(scaled, slowest, 0)

    def scale(some: slice) -> None:
        for plane, target in zip(planes[some], targets[some], strict=True):
            np.subtract(plane, np.float32(low), out=target)
            target *= 65535
            target /= span

    in_threads(scale, [slice(start, start + _PLANES) for start in range(0, len(planes), _PLANES)])
    return scaled


def to_8_bit(volume: np.ndarray) -> np.ndarray:
    """Scale a float32 volume to [0, 65535] by its minimum and maximum, and convert to uint8 by floor(value / 256)."""
    scaled = to_16_bit_range(volume, volume.min(), volume.max())
    scaled /= 256
    return scaled.astype(np.uint8)  # truncation, which is floor for non-negative values


def unstandardized(volume: np.ndarray) -> np.ndarray:
    """The values of a scan about as acquired: standardized values are shifted to start near 0.

    Scans have air near 0 and almost nothing below. If more than a tenth is negative, not counting one value of most of
    the air, they were standardized to a mean of 0 (z-scores), over the whole scan or only the brain. Their original 0
    is unknown; the lowest value without outliers is close to it, as fluid is dark in FLAIR.

    The volume is turned as in `head_threshold`, and returned itself if it was not standardized; else float32.
    """
    sampled = _sampled(volume)
    if np.mean(sampled < 0) <= _NEGATIVE / 5:  # a fast check for scans that were not standardized
        return volume
    values, counts = np.unique(sampled, return_counts=True)
    around = values[np.argmax(counts)] if counts.max() > _AROUND * sampled.size else np.nan
    shown = sampled[sampled != around]
    if not shown.size or np.mean(shown < 0) <= _NEGATIVE:
        return volume
    shifted = np.subtract(volume, np.percentile(shown, _LEAST), dtype=np.float32)
    shifted[volume == around] = 0
    return np.maximum(shifted, 0, out=shifted)


def head_threshold(volume: np.ndarray) -> float:
    """The value that separates a head or extracted brain from the air around it.

    A tenth of the 99.5th percentile; higher for a noisy scan: three times the 25th percentile, as a quarter of most
    fields of view is air, but at most a quarter of the 99.5th. It is not negative, so zeros do not enter the median
    above it. Large volumes are sampled, and must be in one orientation for a threshold independent of storage order.
    """
    quarter, bright = np.percentile(_sampled(volume), (25, 99.5))
    return max(0.0, _AIR * float(bright), min(_NOISE * float(quarter), _NOISIEST * float(bright)))


def to_8_bit_by_median(volume: np.ndarray, median: float) -> np.ndarray:
    """Scale a float32 volume so that `median` becomes the grey level 100, and clip it to uint8 in [0, 255].

    Unlike minimum and maximum, the median of the head does not move with outliers, fat, or brain extraction.
    """
    scaled = volume * np.float32(MEDIAN_LEVEL / median)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


def head_median(volume: np.ndarray, threshold: float) -> float:
    """Median of the voxels above a threshold; 1 if there are none."""
    sampled = _sampled(volume)
    head = sampled[sampled > threshold]
    return float(np.median(head)) if len(head) else 1.0


def _sampled(volume: np.ndarray) -> np.ndarray:
    """Evenly spaced voxels of a volume, enough for a percentile; the same for every storage order once reoriented."""
    step = max(1, round((volume.size / _SAMPLED) ** (1 / 3)))
    return volume[(slice(None, None, step),) * volume.ndim]
