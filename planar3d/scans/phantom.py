"""The embedded phantom: whole-head FLAIR scans of nobody, with lesions, laid out as MSSEG 2016."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from planar3d.errors import DatasetError
from planar3d.scans.phantom_fields import smooth_noise, spread
from planar3d.scans.phantom_head import BRAIN_ORIGIN, TISSUES, build_head
from planar3d.scans.phantom_lesions import FAR, grow_lesions
from planar3d.scans.phantom_subject import Subject, draw_subject
from planar3d.scans.volume import Scan


@dataclass(frozen=True)
class PhantomCenter:
    """A hospital: its scanner and its patients.

    Attributes:
        name: the two digits that begin its scans' names.
        grid: voxels (left-right, anterior-posterior, superior-inferior), Kolarik 2020, table 1.
        spacing: mm along the same axes.
        lesion_ratio: lesion voxels among all voxels, mean over the center, Kolarik 2020, table 1.
        loads: lesion load of each scan relative to that mean.
        white: raw intensity of white matter.
        contrast: signal of each tissue relative to white matter.
        lesion_contrast: how much brighter than white matter lesions are, as a fraction.
        noise: standard deviation relative to white matter.
        bias: standard deviation of the logarithm of the coil's sensitivity.
        tilt: largest angle of the grid to the scanner's axes, degrees.
    """

    name: str
    grid: tuple[int, int, int]
    spacing: tuple[float, float, float]
    lesion_ratio: float
    loads: tuple[float, ...]
    white: float
    contrast: dict[str, float]
    lesion_contrast: float
    noise: float
    bias: float
    tilt: float


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

_TRAINING_SET = Path("Unprocessed training dataset") / "TrainingDataset_MSSEG"  # as the challenge released it first
_REDUCTIONS = (1, 16)
_TISSUE_SPREAD, _GAIN_SPREAD, _TEXTURE = 0.04, 0.1, 0.03  # of one scan's signals to another's, relative
_SOFT_EDGE = 1.6  # mm: width of a lesion's rim
_BIAS_NODE, _TEXTURE_NODE = 30.0, 5.0  # mm
_COIL_END = (0.09, 0.04)  # fractions of the field of view: where, above its lower edge, sensitivity halves; how softly


def write_phantom(
    folder: str | Path,
    *,
    seed: int = 0,
    scans_per_center: int = 5,
    reduction: float = 1.0,
    progress: Callable[[str], None] | None = None,
) -> list[str]:
    """Write whole-head FLAIR scans and their lesion masks, none of them a patient's, in the layout of MSSEG 2016.

    The brain is that of ICBM152, deformed anew for each scan; skull, face and neck are simple shapes; lesions are drawn
    until they make up the published share of the voxels. A scan depends on its name, `seed` and `reduction` only.

    Args:
        folder: gets `Unprocessed training dataset/TrainingDataset_MSSEG/<ID>/`, in it `3DFLAIR.nii.gz` (int16) and
            `Consensus.nii.gz` (uint8, {0, 1}), both stored left, posterior, superior.
        seed: the same seed gives the same voxels.
        scans_per_center: for each of the three centers; beyond five the lesion loads repeat.
        reduction: divides the grid and multiplies the voxel size along each axis, 1 to 16.
        progress: is told of each scan written.

    Returns:
        The scans' names: `01PHANTOM1` is the first of center 01.

    Raises:
        DatasetError: `reduction` is out of range.
        Planar3DError: nilearn, which brings the brain, is not installed.
    """
    least, most = _REDUCTIONS
    if not least <= reduction <= most:
        raise DatasetError(f"The phantom cannot be reduced {reduction} times; give a number from {least} to {most}.")
    names = []
    for center in CENTERS:
        for number in range(1, scans_per_center + 1):
            name = f"{center.name}PHANTOM{number}"
            load = center.loads[(number - 1) % len(center.loads)]
            scan, mask = _make_scan(center, load, reduction, np.random.default_rng([seed, zlib.crc32(name.encode())]))
            case = Path(folder) / _TRAINING_SET / name
            scan.save(case / "3DFLAIR.nii.gz")
            mask.save(case / "Consensus.nii.gz")
            names.append(name)
            if progress:
                progress(f"{name}: {' × '.join(map(str, scan.voxels.shape))} voxels, {mask.voxels.mean():.3%} lesion")
    return names


def _make_scan(center: PhantomCenter, load: float, reduction: float, rng: np.random.Generator) -> tuple[Scan, Scan]:
    """Scan one person at one center, and mark the lesions."""
    of_person, of_disease, of_scanner = rng.spawn(3)
    view = np.multiply(center.grid, center.spacing)
    grid = tuple(round(n / reduction) for n in center.grid)
    ratio = center.lesion_ratio * load
    person = draw_subject(view, of_person)
    signal, depth, brightness = _observe(person, center, grid, ratio, of_disease)

    lesion_voxels = max(1, round(ratio * depth.size))
    outline = np.partition(depth, -lesion_voxels - 1, axis=None)[-lesion_voxels - 1]  # makes the load exact
    edge = max(_SOFT_EDGE, float(np.mean(view / grid)))
    share = np.clip((depth - outline) / edge + 0.5, 0, 1)  # of a voxel taken up by lesion
    signal += share * (1 + center.lesion_contrast * brightness - signal)

    signal *= np.exp(_sensitivity(center, view, grid, of_scanner))
    raw = _with_noise(signal, center.noise, of_scanner)
    raw *= center.white * np.exp(_GAIN_SPREAD * of_scanner.standard_normal())
    header = _header(center, view, grid, of_scanner)
    mask = (depth > outline).astype(np.uint8)
    return Scan(np.rint(np.clip(raw, 0, np.iinfo(np.int16).max)).astype(np.int16), header), Scan(mask, header)


def _observe(
    person: Subject, center: PhantomCenter, grid: tuple[int, ...], ratio: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring a head and its lesions onto the scan's grid.

    Returns:
        signal without lesions relative to white matter, depth in lesions in mm, contrast of lesions; float32 (i, j, k).
    """
    head = build_head(max(1, round(np.min(person.view / grid))))  # no finer than the grid can show
    tissues = {
        tissue: center.contrast[tissue] * np.exp(_TISSUE_SPREAD * rng.standard_normal()) for tissue in TISSUES[1:]
    }
    flair = head.flair({"white": 1.0, **tissues})
    lesions = grow_lesions(ratio * np.prod(person.view) * np.linalg.det(person.pose[:, :3]), rng)
    signal, brightness = np.empty(grid, np.float32), np.ones(grid, np.float32)
    depth = np.full(grid, FAR, np.float32)
    corner = np.reshape(BRAIN_ORIGIN, (3, 1, 1))
    for i, positions in enumerate(person.positions(grid)):
        in_head = (positions - head.origin[:, None, None]) / head.step
        ndimage.map_coordinates(flair, in_head, output=signal[i], order=1)
        in_brain = positions - corner
        ndimage.map_coordinates(lesions.depth, in_brain, output=depth[i], order=1, cval=FAR)
        near = depth[i] > FAR
        brightness[i][near] = ndimage.map_coordinates(lesions.contrast, in_brain[:, near], order=1)
    return signal, depth, brightness


def _sensitivity(center: PhantomCenter, view: np.ndarray, grid: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Draw the logarithm of the coil's sensitivity, with the fine texture of tissue, float32 (i, j, k)."""
    bias, texture = (
        spread(smooth_noise(rng, [round(length / node) + 1 for length in view], 1.2), grid)
        for node in (_BIAS_NODE, _TEXTURE_NODE)
    )
    height = (np.arange(grid[2]) + 0.5) / grid[2]
    end, softness = _COIL_END
    fading = -np.log1p(np.exp((end - height) / softness))
    return center.bias * bias + _TEXTURE * texture + fading.astype(np.float32)


def _with_noise(signal: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Add what a magnitude image has: Rician noise, so that air is not zero."""
    real = signal + np.float32(deviation) * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.hypot(real, np.float32(deviation) * rng.standard_normal(signal.shape, dtype=np.float32))


def _header(center: PhantomCenter, view: np.ndarray, grid: Sequence[int], rng: np.random.Generator) -> nib.Nifti1Header:
    """Lay the grid left, posterior, superior around the scanner's middle, tilted as far as the center tilts it."""
    affine = np.eye(4)
    turned = Rotation.from_rotvec(center.tilt * rng.uniform(-1, 1, 3) / np.sqrt(3), degrees=True).as_matrix()
    affine[:3, :3] = turned @ np.diag(np.multiply([-1, -1, 1], view) / grid)
    affine[:3, 3] = rng.normal(0, 10, 3) - affine[:3, :3] @ (np.array(grid) - 1) / 2
    header = nib.Nifti1Header()
    header.set_data_shape(grid)
    header.set_xyzt_units("mm")
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    return header
