"""How the phantom's files are laid out: what they are called, and how they are written, challenge by challenge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from planar3d.files import write_json, written_beside
from planar3d.scans.phantom_scanner import PhantomCenter
from planar3d.scans.volume import Scan

Make = Callable[[PhantomCenter, float, float, np.random.Generator], dict[str, Scan]]


@dataclass(frozen=True)
class PhantomLayout:
    """One layout.

    Attributes:
        named: what a case is called, with `center` and `number`.
        marked: what its label map marks.
        make: makes a case of a center, a load, a reduction and a generator; the last of its scans holds the labels.
        save: writes the scans of a case, by their names, into the data set's folder.
        finish: writes what the data set has besides, given the names of its cases.
    """

    named: str
    marked: str
    make: Make
    save: Callable[[Path, str, Mapping[str, Scan]], None]
    finish: Callable[[Path, Sequence[str]], None] = lambda folder, names: None


def save_as(pattern: str) -> Callable[[Path, str, Mapping[str, Scan]], None]:
    """Write each scan as a NIfTI file, its path with `name` of the case and `kind` of the scan."""

    def save(folder: Path, name: str, scans: Mapping[str, Scan]) -> None:
        for kind, scan in scans.items():
            scan.save(folder / pattern.format(name=name, kind=kind))

    return save


# The images of Task01_BrainTumour in their order, and its labels: names, and what BraTS has for them.
_MODALITIES = {"flair": "FLAIR", "t1": "T1w", "t1ce": "t1gd", "t2": "T2w"}
_LABELS = {"background": 0, "edema": 2, "non-enhancing tumor": 1, "enhancing tumour": 4}


def save_decathlon(folder: Path, name: str, scans: Mapping[str, Scan]) -> None:
    """Write the images of a case as one series, and its label map with the labels of the Decathlon."""
    first, seg = scans["flair"], scans["seg"]
    header = first.header.copy()
    voxels = np.stack([scans[kind].voxels for kind in _MODALITIES], axis=-1)
    header.set_data_shape(voxels.shape)
    with written_beside(folder / "imagesTr" / f"{name}.nii.gz") as temporary:
        nib.save(nib.Nifti1Image(voxels, None, header), temporary)
    labels = np.zeros_like(seg.voxels)
    for value, theirs in enumerate(_LABELS.values()):
        labels[seg.voxels == theirs] = value
    Scan(labels, seg.header).save(folder / "labelsTr" / f"{name}.nii.gz")


def describe_decathlon(folder: Path, names: Sequence[str]) -> None:
    """Write `dataset.json`."""
    training = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    about = {
        "name": "BRATS",
        "description": "The phantom of planar3d; no patients.",
        "tensorImageSize": "4D",
        "modality": {str(number): name for number, name in enumerate(_MODALITIES.values())},
        "labels": {str(number): name for number, name in enumerate(_LABELS)},
        "numTraining": len(names),
        "numTest": 0,
        "training": training,
        "test": [],
    }
    write_json(folder / "dataset.json", about)
