"""The phantom's scanners and people.

Three hospitals each have their grid, contrast, noise and coil; each head has its pose, and its difference from the
average head.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from planar3d.scans.nifti_header import header_around
from planar3d.scans.phantom_fields import between_nodes, smooth_noise, spread
from planar3d.scans.phantom_head import BRAIN_ORIGIN, lateral_ventricles


@dataclass(frozen=True)
class PhantomCenter:
    """A hospital: its scanner and its patients."""

    name: str  # the first two digits of its scans' names
    grid: tuple[int, int, int]  # voxels (left-right, anterior-posterior, superior-inferior), Kolarik 2020, table 1
    spacing: tuple[float, float, float]  # mm along the same axes
    lesion_ratio: float  # lesion voxels among all voxels, mean over the center, Kolarik 2020, table 1
    loads: tuple[float, ...]  # lesion load of each scan relative to that mean
    white: float  # raw intensity of white matter
    contrast: dict[str, float]  # signal of each tissue relative to white matter
    lesion_contrast: float  # brightness of lesions above white matter, as a fraction
    noise: float  # standard deviation relative to white matter
    bias: float  # standard deviation of the logarithm of the coil's sensitivity
    tilt: float  # largest angle of the grid to the scanner's axes, degrees


CENTERS = (
    PhantomCenter(
        name="01",
        grid=(144, 512, 512),
        spacing=(1.1, 0.5, 0.5),
        lesion_ratio=0.00311,
        loads=(0.6, 1.8, 0.4, 1.3, 0.9),
        white=300,
        contrast={"white": 1, "grey": 1.2, "fluid": 0.22, "marrow": 0.55, "fat": 2.4, "muscle": 0.6},
        lesion_contrast=0.7,
        noise=0.05,
        bias=0.08,
        tilt=0,
    ),
    PhantomCenter(
        name="07",
        grid=(128, 224, 256),
        spacing=(1.25, 1.03, 1.03),
        lesion_ratio=0.00141,
        loads=(1.2, 0.4, 1.7, 0.7, 1.0),
        white=1150,
        contrast={"white": 1, "grey": 1.28, "fluid": 0.15, "marrow": 0.4, "fat": 1.9, "muscle": 0.5},
        lesion_contrast=0.75,
        noise=0.035,
        bias=0.12,
        tilt=0,
    ),
    PhantomCenter(
        name="08",
        grid=(261, 336, 336),
        spacing=(0.7, 0.744, 0.744),
        lesion_ratio=0.00144,
        loads=(0.8, 1.4, 0.5, 1.9, 0.4),
        white=105,
        contrast={"white": 1, "grey": 1.16, "fluid": 0.28, "marrow": 0.7, "fat": 2.2, "muscle": 0.7},
        lesion_contrast=0.65,
        noise=0.06,
        bias=0.05,
        tilt=4,
    ),
)

_GAIN_SPREAD = 0.1  # of values between scans, relative
_BIAS_NODE, _TEXTURE_NODE, _TEXTURE = 30.0, 5.0, 0.03  # mm, mm, relative to the signal
# Fractions of the field of view: height above its lower edge where sensitivity halves, and width of the transition.
_COIL_END = (0.09, 0.04)


def sensitivity(center: PhantomCenter, view: np.ndarray, grid: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Draw the logarithm of the coil's sensitivity, with the fine texture of tissue, float32 (i, j, k)."""
    bias, texture = (
        spread(smooth_noise(rng, [round(length / node) + 1 for length in view], 1.2), grid)
        for node in (_BIAS_NODE, _TEXTURE_NODE)
    )
    height = (np.arange(grid[2]) + 0.5) / grid[2]
    end, softness = _COIL_END
    fading = -np.log1p(np.exp((end - height) / softness))
    return center.bias * bias + _TEXTURE * texture + fading.astype(np.float32)


def scanned(center: PhantomCenter, signal: np.ndarray, view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Raw values int16 (i, j, k) of a signal relative to white matter, with Rician noise, so that air is not zero."""
    signal *= np.exp(sensitivity(center, view, signal.shape, rng))
    deviation = np.float32(center.noise)
    real = signal + deviation * rng.standard_normal(signal.shape, dtype=np.float32)
    raw = np.hypot(real, deviation * rng.standard_normal(signal.shape, dtype=np.float32))
    raw *= center.white * np.exp(_GAIN_SPREAD * rng.standard_normal())
    return np.rint(np.clip(raw, 0, np.iinfo(np.int16).max)).astype(np.int16)


def header_of(
    center: PhantomCenter, view: np.ndarray, grid: Sequence[int], rng: np.random.Generator
) -> nib.Nifti1Header:
    """Place the grid (left, posterior, superior) around the scanner's isocenter, tilted as the center does."""
    turned = Rotation.from_rotvec(center.tilt * rng.uniform(-1, 1, 3) / np.sqrt(3), degrees=True).as_matrix()
    return header_around(rng.normal(0, 10, 3), turned @ np.diag(np.multiply([-1, -1, 1], view) / grid), grid)


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
        axes = zip((-1, -1, 1), self.view, grid, strict=True)  # the storage runs left, posterior, superior
        i, j, k = ((s * length / n * (np.arange(n) - (n - 1) / 2)).astype(np.float32) for s, length, n in axes)
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


def _towards_ventricles(positions: np.ndarray) -> np.ndarray:
    """Vectors towards the lateral ventricles, of length 1 at their walls and fading over `_VENTRICLE_REACH` mm."""
    voxels = (positions - np.reshape(BRAIN_ORIGIN, (3, 1, 1, 1))) / 2
    return np.stack([ndimage.map_coordinates(part, voxels, order=1) for part in _slope_of_ventricles()])


@lru_cache(maxsize=1)
def _slope_of_ventricles() -> np.ndarray:
    """The vectors of `_towards_ventricles` in the average head, (3, x, y, z), on the voxels of the ventricles."""
    near = ndimage.gaussian_filter(lateral_ventricles().astype(np.float32), _VENTRICLE_REACH / 2)
    slope = np.stack(np.gradient(near))
    return slope / np.quantile(np.linalg.norm(slope, axis=0), 0.999)
