"""What a page needs to show a scan in three planes: small volumes, upright, and where they lie."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from planar3d.evaluation.figures import VIEWS, grey_window, head_box, largest_slice, outlines
from planar3d.scans.volume import Scan, on_grid_of

LONGEST = 256  # voxels along an axis of what is shown
WHITE = 170  # the grey level that is white at first; what is brighter can be told apart by turning the contrast down
_BUDGET = 5_500_000  # bytes of the packed scan; a third more in base64
_STEPS = (1, 2, 4, 8)  # neighbouring grey levels that become one
_SAMPLED = 8  # one axial slice in that many says how far a scan packs


@dataclass(frozen=True)
class Pictures:
    """A scan and what lies over it, on the grid that is shown."""

    # By name, uint8 (x, y, z) running right, anterior, superior: `scan` with 0 for black and `WHITE` for white, `mask`
    # {0, 1}, and `probability`, if there is one, with 255 for 1; of several targets each one's mask {0, 1} as well, by
    # `target` and its number.
    volumes: dict[str, np.ndarray]
    affine: np.ndarray  # 4×4, voxels (x, y, z, 1) of the grid that is shown to mm
    to_stored: np.ndarray  # 4×4, the same voxels to the voxels (i, j, k, 1) of the file
    # Voxels of the file that each shown one stands for, along (x, y, z); 1 where nothing is reduced.
    native: tuple[float, float, float]
    # What is outlined, each in a colour of its own: the names of targets, and those of their masks.
    targets: Mapping[str, str]

    @property
    def shape(self) -> tuple[int, ...]:
        """(x, y, z) of what is shown."""
        return self.volumes["scan"].shape

    def place(self, mm: Sequence[float]) -> tuple[int, ...]:
        """The shown voxel (x, y, z) nearest to a point in mm."""
        voxel = np.rint(np.linalg.solve(self.affine, [*mm, 1])[:3]).astype(int)
        return tuple(int(v) for v in np.clip(voxel, 0, np.subtract(self.shape, 1)))

    @property
    def start(self) -> tuple[int, ...]:
        """Where to look first: in each plane the slice with the largest lesion area, or the middle one."""
        mask = self.volumes["mask"]
        return tuple(largest_slice(mask, axis) if mask.any() else n // 2 for axis, n in enumerate(mask.shape))

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON; volumes are base64 of zlib streams in which x runs fastest, then y, then z."""
        step = _grey_step(self.volumes["scan"])
        shown = self.volumes | {"scan": self.volumes["scan"] // step * step}
        return {
            "shape": list(self.shape),
            "spacing_mm": np.linalg.norm(self.affine[:3, :3], axis=0).tolist(),
            "affine": self.affine.tolist(),
            "to_stored": self.to_stored.tolist(),
            "native": list(self.native),
            "white": WHITE,
            "grey_levels": 256 // step,
            "start": list(self.start),
            "targets": [
                {"name": name, "volume": self.targets[name], "colour": colour, "width": width}
                for name, (colour, width) in outlines(self.targets).items()
            ],
            "views": [view._asdict() for view in VIEWS],
            "volumes": {name: base64.b64encode(_packed(v)).decode("ascii") for name, v in shown.items()},
        }


def prepare_pictures(
    scan: Scan, mask: Scan, probability: Scan | None = None, targets: Mapping[str, np.ndarray] | None = None
) -> Pictures:
    """Turn a scan and its mask upright, cut off the air around the head, and reduce both to at most 256 voxels an axis.

    Where several voxels become one, intensities are averaged, and one is lesion where any of them is, so that no lesion
    gets lost; nothing is interpolated.

    Args:
        scan: the intensities; stored in any orientation.
        mask: on the grid of the scan, in any orientation; above 0.5 is lesion.
        probability: as the mask, 0 to 1.
        targets: boolean masks of what the mask shows, by name, on its grid; None for lesions alone.

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
    box = _box(head_box(voxels, low, high), lesions)
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
    to_upright = np.diag([*native, 1.0])
    to_upright[:3, 3] = [part.start + (n - 1) / 2 for part, n in zip(box, native, strict=True)]
    to_stored = nib.orientations.inv_ornt_aff(orientation, scan.voxels.shape) @ to_upright
    outlined = dict(zip(named, masks or ("mask",), strict=True))
    return Pictures(volumes, scan.affine @ to_stored, to_stored, tuple(native), outlined)  # type: ignore[arg-type]


def _box(head: tuple[slice, ...], lesions: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around the head's box and all lesions."""
    found = ndimage.find_objects(lesions.view(np.uint8))
    around = found[0] if found else head
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(head, around, strict=True))


def _edges(size: int) -> np.ndarray:
    """The first of the voxels that become one, for each of at most `LONGEST` along an axis."""
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


def _grey_step(volume: np.ndarray) -> int:
    """How many grey levels must become one for a page to stay handy: only noise is as large, and as finely kept."""
    size = volume.shape[2] / len(range(0, volume.shape[2], _SAMPLED))
    sample = volume[:, :, ::_SAMPLED]
    fitting = (step for step in _STEPS if len(_packed(sample // step)) * size <= _BUDGET)
    return next(fitting, _STEPS[-1])


def _packed(volume: np.ndarray) -> bytes:
    return zlib.compress(volume.tobytes(order="F"), level=4)
