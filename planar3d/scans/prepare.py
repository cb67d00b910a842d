"""Preparation: a raw scan to the 8-bit grid the network sees, and the way back to the native grid."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from planar3d.errors import RunError, ScanError
from planar3d.files import read_json, write_json, written_beside
from planar3d.recipes import PAPER, Recipe
from planar3d.scans.geometry import VIEWS, Geometry
from planar3d.scans.intensities import (
    HEAD_LEVEL,
    MEDIAN_LEVEL,
    head_median,
    head_threshold,
    through_float16,
    to_8_bit,
    to_8_bit_by_median,
    to_16_bit_range,
    unstandardized,
)
from planar3d.scans.nifti_header import MAXIMUM_VOXELS
from planar3d.scans.resample import RESAMPLINGS
from planar3d.scans.volume import Scan, on_grid_of
from planar3d.scans.windows import INPUT_SCALE

_HEAD_SHARE = 0.002  # of a slice; about a square centimetre, which holds no lesion

# Directions by nibabel's codes, and the planes of slices that follow each other in them.
_DIRECTIONS = {
    **{"L": "from right to left", "R": "from left to right", "P": "from anterior to posterior"},
    **{"A": "from posterior to anterior", "S": "from inferior to superior", "I": "from superior to inferior"},
}
_PLANES = {"L": "sagittal", "R": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}
_GRIDS = {
    "cube": "resampled to a {plane} cube of {size} voxels along each axis",
    "slices": "{plane} slices resampled to {size} × {size} pixels of {pixel_mm:g} mm; slices closer than {slice_mm:g} "
    "mm are interleaved into stacks of about that distance",
}
_GREY_LEVELS = {
    "min-max": "the least and greatest value of the scan become 0 and 255",
    "median": f"the median of the head becomes {MEDIAN_LEVEL:g} of 255",
}


def describe_input(recipe: Recipe) -> dict[str, str]:
    """What a network sees of a scan, in words: `slices` (their directions), `grid`, `grey_levels` and `values`."""
    view = VIEWS[recipe.grid]
    plane, (slices, rows, cols) = _PLANES[view[0]], (_DIRECTIONS[code] for code in view)
    return {
        "slices": f"{plane}, {slices}; rows {rows}; cols {cols}",
        "grid": _GRIDS[recipe.grid].format_map({**vars(recipe), "plane": plane}),
        "grey_levels": _GREY_LEVELS[recipe.grey_levels],
        "values": f"8 bit / {INPUT_SCALE} - 1, float32, the one modality in every channel",
    }


@dataclass(frozen=True)
class Prepared:
    """What the network sees of a scan.

    Attributes:
        voxels: uint8 (slices, rows, cols) of the prepared grid.
        geometry: the native grid, and where the prepared one lies.
    """

    voxels: np.ndarray
    geometry: Geometry

    def align(self, mask: Scan) -> np.ndarray:
        """Bring a mask of the scan, stored in any orientation, to the prepared grid: uint8 {0, 1} (slices, rows, cols).

        Raises:
            ScanError: the mask is on another grid than the scan.
        """
        mask = on_grid_of(Scan(np.broadcast_to(np.uint8(0), self.geometry.shape), self.geometry.header), mask)
        turned = self.geometry.turned(mask.voxels)
        # uint8 straight from the nearest neighbour: the release scales masks to 255 and back, to the same effect.
        return self.geometry.laid(turned.astype(np.uint8, copy=False), order=0)

    def restore(self, volume: np.ndarray) -> Scan:
        """Bring probabilities or a mask from the prepared grid back to the native one.

        Args:
            volume: (slices, rows, cols) of the prepared grid; float is interpolated linearly, uint8 and bool by the
                nearest voxel.

        Returns:
            A scan of the input's shape, affine, codes and zooms; float32, or uint8 for masks. What lies outside the
            prepared grid is zero.
        """
        volume = np.asarray(volume)
        if volume.shape != self.voxels.shape:
            raise ValueError(f"The volume has shape {volume.shape}, the prepared scan {self.voxels.shape}.")
        if volume.dtype.kind == "f":
            volume, order = volume.astype(np.float32, copy=False), 1
        else:
            volume, order = volume.astype(np.uint8, copy=False), 0
        return Scan(self.geometry.back(volume, order), self.geometry.header)

    def stacks(self, recipe: Recipe) -> list[slice]:
        """The slices that the network sees together: all of them, or interleaved stacks of about `slice_mm`.

        Slices beyond the head, which grey levels by the median tell from air, are in no stack, unless one would be
        shorter than a window without them.
        """
        count, first, end = _stacks(self.geometry, recipe), 0, len(self.voxels)
        if recipe.grid == "slices" and recipe.grey_levels == "median":
            first, end = _head_slices(self.voxels, at_least=count * recipe.depth)
        return [slice(first + number, end, count) for number in range(count)]


def prepare(scan: Scan, recipe: Recipe = PAPER, size: int | None = None) -> Prepared:
    """Turn a raw scan into the 8-bit grid that the network sees.

    With the grid `"cube"`, as in the paper: the sagittal view; intensities of the whole volume to [0, 65535] by
    minimum and maximum; spline interpolation to size³; minimum and maximum again; 8 bit as floor(value / 256).

    With the grid `"slices"`: axial slices as they were acquired, resampled within their plane to `pixel_mm` and cut or
    padded to size². Slices much closer than `slice_mm` are averaged with their neighbours to about that thickness.

    Grey levels by the median are those of the head, and of a scan that was standardized as if it had not been.

    Args:
        scan: a raw FLAIR scan in any orientation.
        recipe: gives the grid, the spline order, whether scipy or its matrices resample, how grey levels are made,
            and whether raw values pass through float16 as in the release.
        size: voxels along each axis (rows and columns of slices); the recipe's if None.

    Raises:
        ScanError: raw values that the recipe's float16 cannot hold, or slices that are too wide to be resampled.

    Source: Kolarik 2020, section 3.2; the 8-bit arithmetic is the released code's, in float32.
    """
    recipe = recipe.changed(size=size or recipe.size)
    raw, limits = scan.voxels, scan.limits
    if recipe.raw_values == "float16":
        raw = through_float16(raw, scan.path)
        limits = raw.min(), raw.max()
    geometry, air = Geometry.of(scan.header.copy(), recipe), 0.0
    if math.prod(geometry.resampled) > MAXIMUM_VOXELS:
        raise ScanError(
            f"{scan.path or 'The scan'} would have {geometry.resampled} slices, rows and columns at "
            f"{recipe.pixel_mm:g} mm; no head is as wide. Mend its header or convert it again."
        )
    turned, resample = geometry.turned(raw), RESAMPLINGS[recipe.resampling]
    shown = turned
    if recipe.grid == "slices" or recipe.grey_levels == "median":
        shown = unstandardized(turned)
        air = head_threshold(shown)
    if recipe.grid == "slices":
        geometry = Geometry.of(geometry.header, recipe, _center(shown > air))
    if recipe.grey_levels == "min-max":
        laid = geometry.laid(to_16_bit_range(turned, *limits), recipe.spline_order, resample)
        return Prepared(to_8_bit(laid), geometry)
    slices = np.ascontiguousarray(shown, dtype=np.float32)
    slab = (_stacks(geometry, recipe) - 1) // 2 * 2 + 1
    if slab > 1:
        slices = ndimage.uniform_filter1d(slices, slab, axis=0, mode="nearest")
    laid = geometry.laid(slices, recipe.spline_order, resample)
    return Prepared(to_8_bit_by_median(laid, head_median(shown, air)), geometry)


def _center(head: np.ndarray) -> list[float] | None:
    """The center of mass of a mask, (slices, rows, cols) in voxels; None if it is empty.

    By counts along each axis: `ndimage.center_of_mass` takes eight bytes a voxel, several times over.
    """
    if not head.any():
        return None
    counts = [np.count_nonzero(head, axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    return [float(np.average(np.arange(len(count)), weights=count)) for count in counts]


def _head_slices(voxels: np.ndarray, at_least: int) -> tuple[int, int]:
    """The first slice with a part of the head, and the one after the last; more around them if they are too few."""
    shares = np.count_nonzero(voxels > HEAD_LEVEL, axis=(1, 2)) / voxels[0].size
    found = np.flatnonzero(shares > _HEAD_SHARE)
    if not len(found):
        return 0, len(voxels)
    first, end = int(found[0]), int(found[-1]) + 1
    missing = max(0, at_least - (end - first))
    first = max(0, min(first - missing // 2, len(voxels) - at_least))
    return first, min(len(voxels), max(end, first + at_least))


def _stacks(geometry: Geometry, recipe: Recipe) -> int:
    if recipe.grid == "cube":
        return 1
    # A thin slab has fewer slices than would make as many stacks.
    return min(max(1, round(recipe.slice_mm / geometry.spacing[0])), geometry.prepared[0])


def save_prepared(folder: Path, prepared: Prepared, mask: np.ndarray | None) -> None:
    """Write voxels.npy, mask.npy (if given) and, last, geometry.json, whose presence says that all is there."""
    for name, array in (("voxels.npy", prepared.voxels), ("mask.npy", mask)):
        if array is not None:
            with written_beside(folder / name) as temporary:
                np.save(temporary, array)
    write_json(folder / "geometry.json", prepared.geometry.to_json())


def load_prepared(folder: Path) -> tuple[Prepared, np.ndarray | None]:
    """Open what `save_prepared` wrote, memory-mapped: nothing is read before it is used."""
    if not (folder / "geometry.json").is_file():
        raise RunError(f"{folder} holds no prepared scan. Prepare it first, with planar3d prepare.")
    mask = folder / "mask.npy"
    voxels = np.load(folder / "voxels.npy", mmap_mode="r", allow_pickle=False)
    geometry = Geometry.from_json(read_json(folder / "geometry.json"), voxels.shape)
    return Prepared(voxels, geometry), np.load(mask, mmap_mode="r", allow_pickle=False) if mask.is_file() else None
