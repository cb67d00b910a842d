"""The head in a scan, located and measured on a coarse grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import nibabel as nib
import numpy as np
from scipy import ndimage

from planar3d.pipeline import in_threads
from planar3d.scans.intensities import head_threshold, unstandardized
from planar3d.scans.volume import Scan

_STEP = 2.5  # mm between sampled voxels
_LONGEST = 200  # sampled voxels along an axis, whatever the spacing
_HALF_AXES = (75.0, 95.0, 90.0)  # mm, of an ellipsoid the size of an adult's head: right, anterior, superior
_SKULL = (3.0, 15.0)  # mm below the outline: the skull of a head, the cortex of an extracted brain
_VAULT = (20.0, 80.0)  # mm below the vertex, where the outline surrounds only the brain
_CENTRE, _BRAIN_HEIGHT = 25.0, 120.0  # mm below the outline in axial slices, and below the vertex
_DARK = 0.4  # of the grey level in the center; bone and fluid are darker
SIDES = ("left", "right", "posterior", "anterior", "inferior", "superior")


@dataclass(frozen=True)
class Head:
    """A head, or an extracted brain, on a coarse grid."""

    grey: np.ndarray  # intensities of sampled voxels, (right, anterior, superior), from 0 upwards
    standardized: bool  # whether the scan's values were standardized
    spacing: tuple[float, ...]  # mm between them along the same axes
    acquired: tuple[float, ...]  # mm between the scan's own voxels along these axes
    voxel_mm3: float  # volume represented by each
    air: float  # the highest value of air
    inside: np.ndarray  # the largest brighter component, holes in axial slices filled; bool, as `grey`

    @property
    def volume_ml(self) -> float:
        """Volume of the inside."""
        return self.ml(self.inside)

    def ml(self, marked: np.ndarray) -> float:
        """Volume of a mask, bool as `grey`."""
        return np.count_nonzero(marked) * self.voxel_mm3 / 1000

    @property
    def extent(self) -> tuple[float, ...]:
        """Size along (right, anterior, superior) in mm; zeros if the inside is empty."""
        return tuple((part.stop - part.start) * mm for part, mm in zip(box_of(self.inside), self.spacing, strict=True))

    @cached_property
    def depth(self) -> np.ndarray:
        """Distance in mm to the outline within the axial slice, as `grey`; 0 outside."""
        padded = np.pad(self.inside, ((1, 1), (1, 1), (0, 0)))
        return _distance_in_slices(padded, self.spacing)[1:-1, 1:-1]

    @cached_property
    def below_vertex(self) -> np.ndarray:
        """Distance in mm below the highest slice that shows anything, (superior,); negative above it."""
        top = np.flatnonzero(self.inside.any(axis=(0, 1))).max(initial=0)
        return (top - np.arange(self.inside.shape[2])) * self.spacing[2]

    @cached_property
    def vault(self) -> np.ndarray:
        """The inside between 20 and 80 mm below the vertex, above the base of the skull; bool, as `grey`."""
        low, high = _VAULT
        return self.inside & (self.below_vertex > low) & (self.below_vertex < high)

    @cached_property
    def centre(self) -> np.ndarray:
        """The middle of the brain, without cortex, bone and scalp; bool, as `grey`."""
        return (self.depth > _CENTRE) & (self.below_vertex < _BRAIN_HEIGHT)

    @cached_property
    def tissue(self) -> float:
        """Median grey level of the brain's center, or of the whole inside without one; nan if empty."""
        region = self.centre if self.centre.any() else self.inside
        return float(np.median(self.grey[region])) if region.any() else float("nan")

    def distance_to(self, marked: np.ndarray) -> np.ndarray:
        """Distance in mm from every voxel to the nearest marked one of its axial slice, as `grey`; infinite without."""
        return _distance_in_slices(~marked, self.spacing)

    def within(self, marked: np.ndarray, mm: float) -> np.ndarray:
        """Voxels at most so many mm from a marked one of their axial slice; bool, as `grey`.

        For a few mm this is several times as fast as `distance_to`.
        """
        reach = [int(mm / length) for length in self.spacing[:2]]
        rows, cols = self.grey.shape[:2]
        padded = np.pad(marked, [(length, length) for length in reach] + [(0, 0)])
        found = np.zeros_like(marked)
        for i, j in np.ndindex(*(2 * length + 1 for length in reach)):
            if np.linalg.norm(np.multiply((i, j) - np.array(reach), self.spacing[:2])) <= mm:
                found |= padded[i : i + rows, j : j + cols]
        return found

    def missing(self) -> dict[str, float]:
        """How far the head extends beyond the field of view: mm for each of `SIDES`.

        The area of an ellipsoid's outermost slice shows where it was cut. One slice distance is subtracted, since a
        completely covered head may end anywhere within it.
        """
        found = dict.fromkeys(SIDES, 0.0)
        for axis, (half, mm) in enumerate(zip(_HALF_AXES, self.spacing, strict=True)):
            areas = counts_along(self.inside, axis)
            shown = areas[areas > 0]
            for side, area in zip(SIDES[2 * axis :], shown[[0, -1]] if shown.size else (), strict=False):
                found[side] = max(0.0, half * (1 - float(np.sqrt(1 - area / shown.max()))) - mm)
        return found

    @cached_property
    def is_extracted(self) -> bool | None:
        """Whether skull and scalp were removed; None if undecidable.

        A head has a dark ring, its skull, below the outline. An extracted brain has none, and everything around it has
        one value. (A scan with one value in the air but with a skull was only masked.)
        """
        ring = self.grey[self.vault & (self.depth > _SKULL[0]) & (self.depth < _SKULL[1])]
        around = self.grey[~self.inside]
        if not ring.size or not around.size:
            return None
        if np.mean(ring < _DARK * self.tissue) > 0.12:  # 0.25 to 0.46 of whole heads, 0.00 to 0.03 of extracted brains
            return False
        return True if np.mean(around == np.median(around)) > 0.8 else None


def find_head(scan: Scan, step: Sequence[float] = (_STEP, _STEP, _STEP)) -> Head:
    """Find the head in a scan of any orientation, sampled every few mm along (right, anterior, superior)."""
    turned, mm = upright(scan.voxels, scan)
    least = np.ceil(np.divide(turned.shape, _LONGEST * _STEP / np.array(step)))
    steps = np.clip(np.round(step / mm), least, turned.shape).astype(int)
    values = np.ascontiguousarray(turned[tuple(slice(None, None, step) for step in steps)])
    grey = unstandardized(values)
    air, spacing = head_threshold(grey), tuple((mm * steps).tolist())
    voxel_mm3 = scan.voxel_mm3 * float(np.prod(steps))
    acquired = tuple(mm.tolist())
    inside = filled(largest_part(grey > air), in_slices=True)
    return Head(grey, grey is not values, spacing, acquired, voxel_mm3, air, inside)


def upright(volume: np.ndarray, scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """A volume of a scan's grid stored right, anterior, superior, and the mm between its voxels along these axes."""
    orientation = nib.orientations.io_orientation(scan.affine)
    mm = np.array(scan.spacing)[np.argsort(orientation[:, 0])]
    return nib.orientations.apply_orientation(volume, orientation), mm


def on_coarse_grid(labels: np.ndarray, scan: Scan, head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the scan's non-zero voxels, and their nearest voxels of the head's grid, (voxel, axis)."""
    turned, mm = upright(labels, scan)
    marked = np.argwhere(turned)
    steps = np.round(head.spacing / mm)
    nearest = np.minimum(np.rint(marked / steps), np.array(head.grey.shape) - 1).astype(int)
    return turned[tuple(marked.T)], nearest


def largest_part(mask: np.ndarray, structure: np.ndarray | None = None) -> np.ndarray:
    """The largest component of a mask, connected over faces or by a structure; empty for an empty mask."""
    labels, count = ndimage.label(mask, structure)
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]) if count else mask


def box_of(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box with all true voxels; empty if there is none."""
    boxes = ndimage.find_objects(mask.view(np.uint8))
    return boxes[0] if boxes else (slice(0, 0),) * mask.ndim


def counts_along(mask: np.ndarray, axis: int) -> np.ndarray:
    """Number of true voxels in each slice along one of three axes."""
    return np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis}))


def filled(mask: np.ndarray, in_slices: bool = False) -> np.ndarray:
    """Fill the holes of a volume; or of each axial slice, as in 3D a whole head is open at the neck."""
    joined = ndimage.generate_binary_structure(3, 1)
    joined[:, :, (0, 2)] &= not in_slices
    return ndimage.binary_fill_holes(mask, joined)


def _distance_in_slices(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Distance in mm of the true voxels to the nearest false one of their axial slice; infinite where it has none."""
    distances = np.full(mask.shape, np.inf, np.float32)

    def measure(k: int) -> None:
        distances[:, :, k] = ndimage.distance_transform_edt(mask[:, :, k], sampling=spacing[:2])

    in_threads(measure, np.flatnonzero(~mask.all(axis=(0, 1))).tolist())
    return distances
