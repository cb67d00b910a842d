"""The data of a page's viewer: reduced, upright volumes and their geometry."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np

from planar3d.evaluation.figures import bright_box, grey_window, largest_slice, outlines, views_of
from planar3d.scans.head import box_of
from planar3d.scans.volume import Scan, on_grid_of

LONGEST = 256  # voxels along an axis of the shown volumes
WHITE = 170  # the grey level initially shown as white; lower contrast shows brighter ones
_NEXT = 1e-4  # of a shown voxel: less than from a border to the center of a file's voxel beyond it, more than rounding


@dataclass(frozen=True)
class Pictures:
    """A scan and its overlays, on the shown grid."""

    # By name, uint8 (x, y, z) running right, anterior, superior: `scan` with 0 for black and `WHITE` for white, `mask`
    # {0, 1}, and `probability`, if given, with 255 for 1; for several targets also the mask {0, 1} of each, named
    # `target` and its number.
    volumes: dict[str, np.ndarray]
    affine: np.ndarray  # 4×4, voxels (x, y, z, 1) of the shown grid to mm
    to_stored: np.ndarray  # 4×4, the same voxels to the voxels (i, j, k, 1) of the file
    # Voxels of the file per shown voxel, along (x, y, z); 1 without reduction.
    native: tuple[float, float, float]
    first: tuple[float, float, float]  # the voxel (x, y, z) of the upright file at the center of the first shown one
    slices: tuple[int, ...]  # of the upright file along (x, y, z)
    # Outlined targets, each in its own colour: their names, and the names of their masks.
    targets: Mapping[str, str]

    @property
    def shape(self) -> tuple[int, ...]:
        """(x, y, z) of the shown volumes."""
        return self.volumes["scan"].shape

    def place(self, mm: Sequence[float]) -> tuple[int, ...]:
        """The shown voxel (x, y, z) nearest to a point in mm; of two, the lower, as in `_edges`."""
        voxel = np.ceil(np.linalg.solve(self.affine, [*mm, 1])[:3] - 0.5 - _NEXT).astype(int)
        return tuple(int(v) for v in np.clip(voxel, 0, np.subtract(self.shape, 1)))

    @property
    def start(self) -> tuple[int, ...]:
        """The initial position: in each plane the slice with the largest lesion area, or the middle slice."""
        mask = self.volumes["mask"]
        return tuple(largest_slice(mask, axis) if mask.any() else n // 2 for axis, n in enumerate(mask.shape))

    def to_json(self) -> dict[str, Any]:
        """The pictures as JSON; volumes are base64 of zlib streams in which x runs fastest, then y, then z."""
        return {
            "shape": list(self.shape),
            "spacing_mm": np.linalg.norm(self.affine[:3, :3], axis=0).tolist(),
            "affine": self.affine.tolist(),
            "to_stored": self.to_stored.tolist(),
            "native": list(self.native),
            "first": list(self.first),
            "slices": list(self.slices),
            "white": WHITE,
            "start": list(self.start),
            "targets": [
                {"name": name, "volume": self.targets[name], "colour": colour, "width": width}
                for name, (colour, width) in outlines(self.targets).items()
            ],
            "views": [view._asdict() for view in views_of(self.shape)],
            "volumes": {name: _packed(volume) for name, volume in self.volumes.items()},
        }


def prepare_pictures(
    scan: Scan, mask: Scan, probability: Scan | None = None, targets: Mapping[str, np.ndarray] | None = None
) -> Pictures:
    """Reorient a scan and its mask, crop air around the head, and reduce both to at most 256 voxels per axis.

    If several voxels become one, intensities are averaged, and the voxel is lesion if any of them is, so that no lesion
    is lost; there is no interpolation.

    Args:
        scan: the intensities; stored in any orientation.
        mask: on the grid of the scan, in any orientation; above 0.5 is lesion.
        probability: as the mask, 0 to 1.
        targets: boolean masks of the targets by name, on the mask's grid; None for lesions only.

    Raises:
        ScanError: the mask or the probabilities are not on the scan's grid.
    """
    named = targets or {"lesion": mask.voxels}
    parts = named.values() if len(named) > 1 else ()
    masks = {f"target {number}": Scan(part, mask.header) for number, part in enumerate(parts)}
    over = {"mask": mask} | masks | ({} if probability is None else {"probability": probability})
    stored = {"scan": scan} | {name: on_grid_of(scan, volume) for name, volume in over.items()}
    orientation = nib.orientations.io_orientation(scan.affine)
    upright = {name: nib.orientations.apply_orientation(volume.voxels, orientation) for name, volume in stored.items()}
    voxels, lesions = upright["scan"], upright["mask"] > 0.5
    low, high = grey_window(voxels)
    head = bright_box(voxels, low, high)
    spans = zip(head, box_of(lesions) if lesions.any() else head, strict=True)
    box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in spans)  # of the head and all lesions
    edges = [_edges(part.stop - part.start) for part in box]
    shown = _means(voxels[box].astype(np.float32), edges)
    volumes = {
        "scan": np.clip((shown - low) * (WHITE / (high - low)), 0, 255).astype(np.uint8),
        **{name: _joined(np.maximum, (upright[name][box] > 0.5).view(np.uint8), edges) for name in ("mask", *masks)},
    }
    if probability is not None:
        most = _joined(np.maximum, upright["probability"][box], edges)
        volumes["probability"] = np.rint(255 * np.clip(most, 0, 1)).astype(np.uint8)

    native = [(part.stop - part.start) / len(first) for first, part in zip(edges, box, strict=True)]
    first = [part.start + (n - 1) / 2 for part, n in zip(box, native, strict=True)]
    to_upright = nib.affines.from_matvec(np.diag(native), first)
    to_stored = nib.orientations.inv_ornt_aff(orientation, scan.voxels.shape) @ to_upright
    outlined = dict(zip(named, masks or ("mask",), strict=True))
    affine, slices = scan.affine @ to_stored, voxels.shape
    return Pictures(volumes, affine, to_stored, tuple(native), tuple(first), slices, outlined)  # type: ignore[arg-type]


def _edges(size: int) -> np.ndarray:
    """The first of the voxels merged into each of at most `LONGEST` along an axis."""
    shown = min(size, LONGEST)
    return (2 * np.arange(shown) * size + shown) // (2 * shown)  # rounded


def _joined(join: np.ufunc, volume: np.ndarray, edges: Sequence[np.ndarray]) -> np.ndarray:
    for axis, first in enumerate(edges):
        if len(first) < volume.shape[axis]:
            volume = join.reduceat(volume, first, axis=axis)
    return volume


def _means(volume: np.ndarray, edges: Sequence[np.ndarray]) -> np.ndarray:
    counts = [np.diff([*first, size]).astype(np.float32) for first, size in zip(edges, volume.shape, strict=True)]
    x, y, z = np.ix_(*counts)
    return _joined(np.add, volume, edges) / (x * y * z)


def _packed(volume: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(volume.tobytes(order="F"), level=4)).decode("ascii")
