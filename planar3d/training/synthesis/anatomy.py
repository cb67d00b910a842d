"""Heads as maps of tissues, and the positions of lesions in them."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from planar3d.errors import DatasetError, ScanError, untrusted
from planar3d.files import written_beside
from planar3d.scans.checks import are_labels
from planar3d.scans.head import box_of
from planar3d.scans.volume import Scan, read_volume
from planar3d.wording import listed

# Tissues with similar signal in FLAIR, with their labels in FreeSurfer, and from 501 on in SynthSeg's maps of whole
# heads. Its other tissues are fat near the skin and around the eyes, and muscle elsewhere; `read_anatomy` separates
# them, and the insula from other cortex, and marrow from cortical bone.
_LABELS: dict[str, tuple[int, ...]] = {
    "air": (0, 501),
    "white": (2, 41, 25, 57, 77, 78, 79, 251, 252, 253, 254, 255),
    "cortex": (3, 42),
    "insula": (),
    "limbic": (17, 18, 53, 54),
    "striatum": (11, 12, 26, 50, 51, 58, 80),  # and the hypointensities of grey matter
    "pallidum": (13, 52),
    "thalamus": (10, 49),
    "brainstem": (16, 28, 60, 85),
    "cerebellar white": (7, 46),
    "cerebellar cortex": (8, 47),
    "ventricle": (4, 5, 43, 44),
    "third and fourth ventricle": (14, 15, 72),
    "choroid plexus": (31, 63, 136, 137, 163, 164),
    "fluid": (24,),
    "vessel": (30, 62, 502, 514),
    "eye": (506,),
    "fat": (),
    "muscle": (507, 508),
    "mucosa": (509,),
    "skin": (511,),
    "nerve": (512, 530),
    "bone": (515,),
    "marrow": (516,),
}
TISSUES = tuple(_LABELS)
_OTHER, _PUTAMEN = 507, (12, 51)
_INSULA, _SCALP, _ORBIT, _TABLE = 13.0, 9.0, 14.0, 2  # mm from putamen, skin and eyes, and voxels into the bone
_NECK = 22.0  # mm kept below the brain

# Mean positions of tissues in MNI space: mm from the midline, anterior, superior.
_CENTERS = {
    "white": (27, -18, 20),
    "cortex": (31, -17, 17),
    "limbic": (24, -17, -14),
    "striatum": (19, 4, 5),
    "pallidum": (20, -4, -1),
    "thalamus": (11, -18, 7),
    "brainstem": (7, -27, -25),
    "cerebellar cortex": (23, -62, -35),
}
_STEP = 2  # voxels between listed positions
KINDS = ("periventricular", "deep", "juxtacortical", "infratentorial")


def tissue(*names: str) -> np.ndarray:
    """A table of bool by index: whether each tissue is among these."""
    return np.isin(TISSUES, names)


BRAIN = tissue(*TISSUES[1:14])  # including ventricles, without the surrounding fluid
LESION_TISSUE = tissue("white", "brainstem", "cerebellar white")


class Stored:
    """A dataclass of arrays and texts that is stored as a compressed `.npz`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def save(self, path: str | Path) -> Path:
        """Write the file: about half a megabyte for an anatomy."""
        with written_beside(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{name: getattr(self, name) for name in self.__dataclass_fields__})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the output of `save`; a `ScanError` names a file that is damaged or another one."""
        content = io.BytesIO(Path(path).read_bytes())  # in damaged files on a disk, seeking fails like the disk itself
        advice = f"A file of {cls.__name__}.save is needed; copy or write it again."
        with untrusted(Path(path), advice), np.load(content, allow_pickle=False) as file:
            return cls(**{name: file[name][()] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Anatomy(Stored):
    """One head."""

    labels: np.ndarray  # uint8 (right, anterior, superior), indices in `TISSUES`, in voxels of 1 mm
    affine: np.ndarray  # 4×4, from voxels to mm (right, anterior, superior)
    name: str = ""  # of the map

    @cached_property
    def brain(self) -> tuple[slice, ...]:
        """The box of the brain."""
        return box_of(BRAIN[self.labels])

    @cached_property
    def template(self) -> np.ndarray:
        """3×4, approximately from voxels to mm in MNI space, by the mean positions of tissues."""
        midline = np.argwhere(self.labels == TISSUES.index("white"))[:, 0].mean()
        found, wanted = [], []
        for name, center in _CENTERS.items():
            places = np.argwhere(self.labels == TISSUES.index(name))
            if len(places):
                found.append([np.abs(places[:, 0] - midline).mean(), *places[:, 1:].mean(axis=0), 1])
                wanted.append(center)
        have, want = np.array(found), np.array(wanted)
        width = (have[:, 0] @ want[:, 0]) / (have[:, 0] @ have[:, 0])
        in_plane, *_ = np.linalg.lstsq(have[:, 1:], want[:, 1:], rcond=None)
        return np.vstack([[width, 0, 0, -width * midline], np.column_stack([np.zeros(2), in_plane.T])])

    @cached_property
    def upright(self) -> np.ndarray:
        """3×3, the rotation from the axes of MNI space to the head's: its nodding."""
        (a, b), (c, d) = self.template[1:, 1:3]
        nod = np.arctan2(c - b, a + d)
        return Rotation.from_euler("x", -nod).as_matrix()

    @cached_property
    def from_ventricles(self) -> tuple[tuple[slice, ...], np.ndarray]:
        """A box 14 mm around the lateral ventricles, and the distance from them in it in mm, float32."""
        ventricles = self.labels == TISSUES.index("ventricle")
        inside = zip(box_of(ventricles), ventricles.shape, strict=True)
        box = tuple(slice(max(0, part.start - 14), min(n, part.stop + 14)) for part, n in inside)
        return box, _distance_from(ventricles[box])

    @cached_property
    def places(self) -> dict[str, np.ndarray]:
        """Voxels that may be centers of lesions, (place, 3), by `KINDS`."""
        coarse = self.labels[(slice(None, None, _STEP),) * 3]
        white = coarse == TISSUES.index("white")
        ventricles, cortex = (
            _STEP * _distance_from(of[coarse]) for of in (tissue("ventricle"), tissue("cortex", "insula"))
        )
        regions = {
            "periventricular": white & (ventricles < 7),
            "deep": white & (ventricles >= 7) & (cortex > 5),
            "juxtacortical": white & (ventricles > 12) & (cortex <= 3),
            "infratentorial": tissue("brainstem", "cerebellar white")[coarse],
        }
        return {kind: _STEP * np.argwhere(region) for kind, region in regions.items()}


def read_anatomy(path: str | Path) -> Anatomy:
    """Read a head: a label map with FreeSurfer's labels at 1 mm, or an `.npz` from `Anatomy.save`."""
    path = Path(path)
    if path.suffix == ".npz":
        return Anatomy.load(path)
    scan = read_volume(path, None, None, "a label map, a single volume of whole numbers,")
    refuse_other_voxels(scan)
    labels = np.rint(scan.voxels)
    if not are_labels(scan.voxels, labels, np.iinfo(np.int16).max):
        low, high = scan.limits
        raise ScanError(
            f"{path} has values from {low:g} to {high:g}; FreeSurfer's labels for a head are whole numbers. "
            "Name another file."
        )
    image = nib.as_closest_canonical(nib.Nifti1Image(labels.astype(np.int16), scan.affine))
    found = np.asarray(image.dataobj)
    table = np.full(max(1024, int(found.max()) + 1), 255, np.uint8)
    for index, alike in enumerate(_LABELS.values()):
        table[list(alike)] = index
    tissues = table[found]
    if tissues.max() == 255:
        unknown = np.unique(found[tissues == 255]).tolist()
        raise ScanError(f"{path} has labels that are not FreeSurfer's for a head: {listed(unknown)}. Remove them.")
    brain = np.flatnonzero(BRAIN[tissues].any(axis=(0, 1)))
    if not len(brain):
        raise ScanError(f"{path} shows no brain; a label map of a head is needed. Name another file.")
    tissues[:, :, : max(0, brain[0] - round(_NECK))] = 0
    box = box_of(tissues > 0)
    moved = np.eye(4)
    moved[:3, 3] = [part.start for part in box]
    return Anatomy(_told_apart(tissues[box], found[box]), image.affine @ moved, path.name.split(".")[0])


def refuse_other_voxels(scan: Scan) -> None:
    """Raise a `ScanError` unless the voxels of a map have 1 mm."""
    if np.abs(np.array(scan.spacing) - 1).max() > 0.02:
        sizes = " × ".join(f"{mm:g}" for mm in scan.spacing)
        raise ScanError(f"{scan.path} has voxels of {sizes} mm; 1 mm is needed. Resample it (nearest neighbour).")


def read_anatomies(folder: str | Path) -> tuple[Anatomy, ...]:
    """Read all heads of a folder, by name."""
    return tuple(read_anatomy(path) for path in files_in(folder, ("*.nii.gz", "*.nii", "*.npz"), "label map"))


def files_in(folder: str | Path, patterns: Iterable[str], what: str) -> list[Path]:
    """The files of a folder by name; at least one is required."""
    found = sorted(path for pattern in patterns for path in Path(folder).glob(pattern))
    if not found:
        raise DatasetError(f"{folder} has no {what} ({' or '.join(patterns)}); name another folder.")
    return found


def _told_apart(tissues: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Separate tissues that share a label in the map."""

    def near(of: np.ndarray, mm: float) -> np.ndarray:
        distance = _STEP * _distance_from(of[(slice(None, None, _STEP),) * 3])
        for axis, length in enumerate(of.shape):
            distance = distance.repeat(_STEP, axis).take(np.arange(length), axis)
        return distance <= mm

    inner = ndimage.binary_erosion(tissues == TISSUES.index("bone"), iterations=_TABLE)
    tissues[inner] = TISSUES.index("marrow")
    tissues[(tissues == TISSUES.index("cortex")) & near(np.isin(labels, _PUTAMEN), _INSULA)] = TISSUES.index("insula")
    fat = near(tissues == TISSUES.index("skin"), _SCALP) | near(tissues == TISSUES.index("eye"), _ORBIT)
    tissues[(labels == _OTHER) & fat] = TISSUES.index("fat")
    return tissues


def _distance_from(mask: np.ndarray) -> np.ndarray:
    """Distance of all voxels from a mask in voxels, float32; infinite without one."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return ndimage.distance_transform_edt(~mask).astype(np.float32)
