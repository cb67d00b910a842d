"""The phantom's people: pose of each head in the scanner, and its difference from the average head."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from planar3d.scans.phantom_fields import between_nodes, smooth_noise, spread
from planar3d.scans.phantom_head import BRAIN_ORIGIN, lateral_ventricles

# All lengths in mm; positions in the average head are ICBM152 world coordinates.
_BRAIN_CENTER, _VERTEX = np.array([0.0, -18.0, 10.0]), np.array([0.0, -2.0, 96.0])
_SCALE, _SCALE_SPREAD = 0.92, 0.018  # the ICBM152 average is larger than most heads
_ROTATION_SPREAD = (2.5, 1.5, 2.0)  # degrees: nodding, leaning, turning
_SHIFT_SPREAD = 2.0
_HEADROOM = 9.0  # air above the vertex
_NODE = 6.0  # distance of the displacement's nodes
_DISPLACEMENTS = ((2.2, 4.0), (1.1, 1.6))  # (standard deviation in mm, smoothness in nodes): lobes, gyri
_VENTRICLE_GROWTH = (-0.5, 4.5)  # outward displacement of their walls
_VENTRICLE_REACH = 7.0


@dataclass(frozen=True)
class Subject:
    """One person in a field of view."""

    view: np.ndarray  # size of the field of view in mm (left-right, anterior-posterior, superior-inferior)
    pose: np.ndarray  # (3, 4), from mm right, anterior and superior of the view's center to the average head
    # (3, i, j, k), displacement in mm in the average head, on nodes spread over the view's voxels, whose axes run
    # left, posterior, superior.
    displacement: np.ndarray

    def positions(self, grid: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the positions of voxels in the average head, for each sagittal slice of a grid over the view.

        Each is float32 (3, posterior, superior) in mm right, anterior, superior.
        """
        i, j, k = (axis.astype(np.float32) for axis in _centered(self.view, grid))
        columns = self.pose[:, :3].astype(np.float32)
        in_plane = columns[:, 1, None, None] * j[:, None] + columns[:, 2, None, None] * k
        in_plane += self.pose[:, 3, None, None].astype(np.float32)
        planes = spread(self.displacement, grid[1:])
        for here, left, share in zip(i, *between_nodes(planes.shape[1], grid[0]), strict=True):
            shift = (1 - share) * planes[:, left] + share * planes[:, left + 1]
            yield in_plane + columns[:, 0, None, None] * here + shift


def draw_subject(view: np.ndarray, rng: np.random.Generator) -> Subject:
    """Draw a person in a field of view of this size in mm, with the vertex below its upper edge."""
    scale = _SCALE * rng.normal(1, _SCALE_SPREAD, 3)
    rotation = Rotation.from_euler("xyz", rng.normal(0, _ROTATION_SPREAD), degrees=True).as_matrix()
    top = np.array([0, 0, view[2] / 2 - _HEADROOM]) + rng.normal(0, _SHIFT_SPREAD, 3)
    center = top - scale * (_VERTEX - _BRAIN_CENTER)
    inverse = (rotation / scale).T  # of rotation @ diag(scale)
    pose = np.column_stack([inverse, _BRAIN_CENTER - inverse @ center])
    nodes = [round(length / _NODE) + 1 for length in view]
    displacement = sum(
        deviation * np.stack([smooth_noise(rng, nodes, smoothness) for _ in range(3)])
        for deviation, smoothness in _DISPLACEMENTS
    )
    undisturbed = np.stack(list(Subject(view, pose, np.zeros((3, 2, 2, 2), np.float32)).positions(nodes)), axis=1)
    return Subject(view, pose, displacement + rng.uniform(*_VENTRICLE_GROWTH) * _towards_ventricles(undisturbed))


def _centered(view: np.ndarray, grid: Sequence[int]) -> list[np.ndarray]:
    """Voxel centers along each axis, in mm right, anterior, superior of the view's center."""
    signs = (-1, -1, 1)  # the storage runs left, posterior, superior
    return [s * length / n * (np.arange(n) - (n - 1) / 2) for s, length, n in zip(signs, view, grid, strict=True)]


def _towards_ventricles(positions: np.ndarray) -> np.ndarray:
    """Vectors towards the lateral ventricles, of length 1 at their walls and fading over `_VENTRICLE_REACH` mm."""
    near = ndimage.gaussian_filter(lateral_ventricles().astype(np.float32), _VENTRICLE_REACH / 2)
    slope = np.stack(np.gradient(near))
    slope /= np.quantile(np.linalg.norm(slope, axis=0), 0.999)
    voxels = (positions - np.reshape(BRAIN_ORIGIN, (3, 1, 1, 1))) / 2
    return np.stack([ndimage.map_coordinates(part, voxels, order=1) for part in slope])
