"""The phantom's scanners: three hospitals, each with its grid, contrast, noise and coil."""

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from planar3d.scans.nifti_header import header_with
from planar3d.scans.phantom_fields import smooth_noise, spread


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
    affine = np.eye(4)
    turned = Rotation.from_rotvec(center.tilt * rng.uniform(-1, 1, 3) / np.sqrt(3), degrees=True).as_matrix()
    affine[:3, :3] = turned @ np.diag(np.multiply([-1, -1, 1], view) / grid)
    affine[:3, 3] = rng.normal(0, 10, 3) - affine[:3, :3] @ (np.array(grid) - 1) / 2
    return header_with(affine, grid)
