"""Lesions with real shapes at plausible positions of a head."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from planar3d.errors import DatasetError
from planar3d.scans.phantom_fields import smooth_noise, spread
from planar3d.scans.volume import read_mask
from planar3d.training.synthesis.anatomy import KINDS, LESION_TISSUE, Anatomy, Stored, files_in, refuse_other_voxels

_LEAST_VOXELS = 5  # of a shape
_SMOOTH = (0.7, 1.5)  # mm, of outlines
_LATTICE, _CORNER, _NODES = 4.0, np.array([-80.0, -112.0, -64.0]), (41, 49, 38)  # of frequencies in MNI space, mm

_SHARES = (0.35, 0.3, 0.25, 0.1)  # of moved lesions, by `KINDS`
_MOVED, _SMALL = 0.6, 1500.0  # share of lesions up to this size in mm³ that are moved
_JITTER, _TURN = 4.0, 12.0  # mm, degrees, of lesions that are not moved
_RAGGED, _NODE = 0.22, 3.0  # of outlines, of half a lesion's depth; mm
_GROWTH = (0.55, 1.7)  # of a shape's diameter
_TO_VENTRICLE, _REACH = 0.45, 3.5  # tendency of a lesion to reach ventricles within this distance in mm
_SHARPNESS = (1.0, 2.2)  # of edges: 1 keeps the smoothness of outlines
_LEVEL_SPREAD, _LEAST_GAIN = 0.25, 0.08  # of single lesions' contrasts, logarithm; least contrast
_LARGE = 40  # voxels along an axis
_FULLEST, _TRIES = 0.4, 400  # of the tissue; lesions tried


@dataclass(frozen=True)
class LesionShapes(Stored):
    """Lesions of patients, each a connected component of a mask in MNI space."""

    bits: np.ndarray  # uint8, the masks of all lesions, packed separately
    sizes: np.ndarray  # (lesion, 3), shapes of these masks in voxels of 1 mm, (right, anterior, superior)
    centers: np.ndarray  # (lesion, 3), their centers in mm
    volumes: np.ndarray  # (lesion,), mm³
    patients: np.ndarray  # (lesion,), their patients

    @classmethod
    def read(cls, folder: str | Path) -> "LesionShapes":
        """Extract lesions from all masks of a folder (NIfTI at 1 mm in MNI space), or read a file from `save`.

        Raises:
            DatasetError: there is no mask, or no lesion.
            ScanError: a mask cannot be used, or has voxels of another size.
        """
        if Path(folder).suffix == ".npz":
            return cls.load(folder)
        bits, about = [], []
        for patient, path in enumerate(files_in(folder, ("*.nii.gz", "*.nii"), "lesion mask")):
            mask = read_mask(path, assume_affine=None)
            refuse_other_voxels(mask)
            image = nib.as_closest_canonical(nib.Nifti1Image(mask.voxels, mask.affine))
            labels, _ = ndimage.label(np.asarray(image.dataobj))
            for number, box in enumerate(ndimage.find_objects(labels), start=1):
                shape = labels[box] == number
                if (voxels := np.count_nonzero(shape)) >= _LEAST_VOXELS:
                    middle = [(part.start + part.stop - 1) / 2 for part in box]
                    bits.append(np.packbits(shape))
                    about.append((*shape.shape, *(image.affine @ [*middle, 1])[:3], voxels, patient))
        if not about:
            raise DatasetError(
                f"The masks of {folder} have no lesion of at least {_LEAST_VOXELS} voxels; name another folder."
            )
        table = np.array(about)
        volumes, patients = table[:, 6], np.unique(table[:, 7], return_inverse=True)[1]  # of those with lesions
        return cls(np.concatenate(bits), table[:, :3].astype(int), table[:, 3:6], volumes, patients)

    def shape(self, lesion: int) -> np.ndarray:
        """A lesion's mask, bool (right, anterior, superior)."""
        size = self.sizes[lesion]
        first = self._starts[lesion]
        return np.unpackbits(self.bits[first : self._starts[lesion + 1]], count=size.prod()).reshape(size).astype(bool)

    @cached_property
    def loads(self) -> np.ndarray:
        """Volume of all lesions of each patient in mm³."""
        return np.bincount(self.patients, self.volumes)

    @cached_property
    def frequency(self) -> np.ndarray:
        """The frequency of lesions, symmetric in left and right, on a lattice in MNI space; mean 1."""
        counts = np.zeros(_NODES)
        for side in (1, -1):
            nodes = np.rint((self.centers * [side, 1, 1] - _CORNER) / _LATTICE).astype(int)
            np.add.at(counts, tuple(np.clip(nodes, 0, np.array(_NODES) - 1).T), 1)
        counts = ndimage.gaussian_filter(counts, 2.0)
        return counts / counts.mean()

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(-(-self.sizes.prod(axis=1) // 8))])


def place_lesions(
    anatomy: Anatomy, shapes: LesionShapes, volume: float, gain: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Place lesions in white matter, brainstem and cerebellar white matter.

    Lesions come from patients with a similar volume; large ones stay in place, slightly rotated and shifted, and most
    small ones are moved to frequent positions. All are scaled, with deformed outlines.

    Args:
        volume: of all lesions in mm³, approximately.
        gain: mean brightness above white matter, relative to it.

    Returns:
        The lesion fraction of each of the anatomy's voxels, and the lesion's signal there relative to white matter,
        both float32.
    """
    placed = np.zeros(anatomy.labels.shape, np.float32), np.ones(anatomy.labels.shape, np.float32)
    ragged = spread(smooth_noise(rng, [round(n / _NODE) + 2 for n in anatomy.labels.shape], 0.8), anatomy.labels.shape)
    to_voxels = np.linalg.inv(np.vstack([anatomy.template, [0, 0, 0, 1]]))
    volume = min(volume, _FULLEST * np.count_nonzero(LESION_TISSUE[anatomy.labels]))
    queue: list[int] = []
    done, mirror, growth = 0.0, 1.0, 1.0
    for _ in range(_TRIES):
        if done >= 0.95 * volume:
            break
        if not queue:
            nearness = np.exp(-1.5 * np.abs(np.log(shapes.loads / volume)))
            patient = rng.choice(len(nearness), p=nearness / nearness.sum())
            growth = float(np.clip(np.cbrt(volume / shapes.loads[patient]), *_GROWTH))
            mirror = rng.choice((-1.0, 1.0))
            own = np.flatnonzero(shapes.patients == patient)
            queue = own[np.argsort(shapes.volumes[own])].tolist()
        lesion = queue.pop()
        scale = growth * np.exp(0.12 * rng.standard_normal())
        scale = min(scale, float(np.cbrt(1.1 * (volume - done) / shapes.volumes[lesion])))
        if scale < _GROWTH[0]:
            continue
        small = shapes.volumes[lesion] * scale**3 <= _SMALL
        if small and rng.random() < _MOVED:
            center, turn = _place(anatomy, shapes, rng), Rotation.from_rotvec(rng.uniform(-np.pi, np.pi, 3) / 1.7)
        else:
            center = to_voxels[:3] @ [*shapes.centers[lesion] * [mirror, 1, 1], 1]
            center = center + rng.normal(0, _JITTER, 3)
            turn = Rotation.from_rotvec(rng.normal(0, _TURN / 1.7, 3), degrees=True)
        if center is None:
            continue
        matrix = (turn.as_matrix() * [mirror, 1, 1]).T / scale
        brightness = max(_LEAST_GAIN, gain * np.exp(_LEVEL_SPREAD * rng.standard_normal()))
        done += _paint(anatomy, placed, shapes.shape(lesion), center, matrix, brightness, ragged, rng)
    return placed


def _place(anatomy: Anatomy, shapes: LesionShapes, rng: np.random.Generator) -> np.ndarray | None:
    """Draw the center of a lesion, in voxels."""
    places = anatomy.places[KINDS[rng.choice(len(KINDS), p=_SHARES)]]
    if not len(places):
        return None
    chosen = places[rng.integers(len(places), size=24)]  # of a few random positions, one by lesion frequency
    at = (chosen @ anatomy.template[:, :3].T + anatomy.template[:, 3] - _CORNER) / _LATTICE
    weights = 0.1 + ndimage.map_coordinates(shapes.frequency, at.T, order=1, mode="nearest")
    return chosen[rng.choice(len(chosen), p=weights / weights.sum())] + rng.uniform(-1, 1, 3)


def _paint(
    anatomy: Anatomy,
    placed: tuple[np.ndarray, np.ndarray],
    shape: np.ndarray,
    center: np.ndarray,
    matrix: np.ndarray,
    gain: float,
    ragged: np.ndarray,
    rng: np.random.Generator,
) -> float:
    """Add one lesion, and count the voxels it adds; `matrix` leads from the anatomy's voxels to the shape's."""
    soft = ndimage.gaussian_filter(np.pad(shape, 4).astype(np.float32), rng.uniform(*_SMOOTH))
    voxels = np.count_nonzero(shape)
    soft *= 0.5 / np.partition(soft, -voxels, axis=None)[-voxels]  # keeps the number of voxels above one half
    half = np.abs(np.linalg.inv(matrix)) @ (np.array(soft.shape) / 2)
    low = np.maximum(np.floor(center - half), 0).astype(int)
    high = np.minimum(np.ceil(center + half) + 1, anatomy.labels.shape).astype(int)
    if (high - low < 2).any():  # at most the shape's empty border lies inside
        return 0.0
    box = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
    size = high - low
    lattice = np.where(size > _LARGE, size // 2 + 1, size)  # for large lesions every second voxel, linear between
    offset = (np.array(soft.shape) - 1) / 2 - matrix @ (center - low)
    steps = (size - 1) / np.maximum(lattice - 1, 1)
    field = spread(ndimage.affine_transform(soft, matrix * steps, offset, tuple(lattice), order=1), size)
    near = field > 0.12
    field += _RAGGED * ragged[box] * np.minimum(1, field * 2)
    field[near] += _TO_VENTRICLE * np.exp(-_distance(anatomy, box)[near] / _REACH)
    sharpness = rng.uniform(*_SHARPNESS)
    share = np.clip((field - 0.5) * sharpness + 0.5, 0, 1) * LESION_TISSUE[anatomy.labels[box]]
    before, level = (each[box] for each in placed)
    wins = share > before
    level[wins] = 1 + gain * (1 + 0.12 * ragged[box][wins])
    added = np.count_nonzero((share > 0.5) & (before <= 0.5))
    before[wins] = share[wins]
    return float(added)


def _distance(anatomy: Anatomy, box: tuple[slice, ...]) -> np.ndarray:
    """Distance from the ventricles in a box, mm; infinite where unknown."""
    known, distances = anatomy.from_ventricles
    offset = [part.start - have.start for part, have in zip(box, known, strict=True)]
    size = tuple(part.stop - part.start for part in box)
    return ndimage.affine_transform(distances, np.eye(3), offset, size, order=0, cval=np.inf)
