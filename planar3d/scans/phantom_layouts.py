"""The phantom's layouts: names and formats of files, challenge by challenge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from planar3d.files import folder_written_beside, write_json, write_text, written_beside
from planar3d.scans.case import EVERYONE
from planar3d.scans.itk_images import write_itk
from planar3d.scans.phantom_scanner import PhantomCenter
from planar3d.scans.volume import Scan

MSSEG = "Unprocessed training dataset/TrainingDataset_MSSEG/{name}/{kind}.nii.gz"
Make = Callable[[PhantomCenter, float, float, np.random.Generator], dict[str, Scan]]


@dataclass(frozen=True)
class PhantomLayout:
    """One layout."""

    named: str  # name of a case, with `center` and `number`
    marked: str  # content of its label map
    make: Make  # makes a case from a center, a load, a reduction and a generator; its last scan is the label map
    # Writes the scans of a case, by their names, to the data set's folder.
    save: Callable[[Path, str, Mapping[str, Scan]], None]
    # Writes the other files of the data set, given the names of its cases.
    finish: Callable[[Path, Sequence[str]], None] = lambda folder, names: None
    groups: Sequence[str] = (EVERYONE,) * 3  # of the patients of each center, as they are found
    packages: Sequence[str] = ()  # with which it is made and written
    extra: str = "challenges"  # that has the packages
    source: Mapping[str, Any] = field(default_factory=dict)  # what its cases are made of, for its settings


def save_as(pattern: str) -> Callable[[Path, str, Mapping[str, Scan]], None]:
    """Write each scan as a NIfTI file; its path has `name` of the case and `kind` of the scan."""

    def save(folder: Path, name: str, scans: Mapping[str, Scan]) -> None:
        for kind, scan in scans.items():
            scan.save(folder / pattern.format(name=name, kind=kind))

    return save


# The images of Task01_BrainTumour in their order, and its labels: names, and the corresponding values of BraTS.
_MODALITIES = {"flair": "FLAIR", "t1": "T1w", "t1ce": "t1gd", "t2": "T2w"}
_LABELS = {"background": 0, "edema": 2, "non-enhancing tumor": 1, "enhancing tumour": 4}


def save_decathlon(folder: Path, name: str, scans: Mapping[str, Scan]) -> None:
    """Write the images of a case as one 4-D file, and its label map with the labels of the Decathlon."""
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
    about = {
        "name": "BRATS",
        "description": "The phantom of planar3d; no patients.",
        "tensorImageSize": "4D",
        "modality": {str(number): name for number, name in enumerate(_MODALITIES.values())},
        "labels": {str(number): name for number, name in enumerate(_LABELS)},
        "numTraining": len(names),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
        "test": [],
    }
    write_json(folder / "dataset.json", about)


def save_chaos(folder: Path, name: str, scans: Mapping[str, Scan]) -> None:
    """Write series as DICOM files and organs as PNG files, from the top slice down."""
    from PIL import Image

    modality = "CT" if "Ground" in scans else "MR"
    for place, scan in scans.items():
        series = folder / "Train_Sets" / modality / name / place
        with folder_written_beside(series) as inside:
            for number in range(scan.voxels.shape[2]):
                k = scan.voxels.shape[2] - 1 - number
                pixels = np.ascontiguousarray(scan.voxels[:, :, k].T)
                if place.endswith("Ground"):
                    file = f"liver_GT_{number:03d}.png" if modality == "CT" else f"IMG-{number:05d}.png"
                    Image.fromarray(pixels).save(inside / file)
                else:
                    file = f"i{number:04d},0000b.dcm" if modality == "CT" else f"IMG-0004-{number + 1:05d}.dcm"
                    image = _dicom_image(series / file, pixels, scan.affine, k, modality, number)
                    image.save_as(inside / file, enforce_file_format=True)


def _dicom_image(path: Path, pixels: np.ndarray, affine: np.ndarray, k: int, modality: str, number: int) -> Any:
    """A slice with the UIDs of its path, as in anonymized files; CT values as unsigned numbers from -1024."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    offset = -1024 if modality == "CT" else 0
    stored = np.clip(pixels.astype(np.int32) - offset, 0, 4095).astype("<u2")
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    uid = generate_uid(entropy_srcs=[str(path)])
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = image.SeriesInstanceUID = uid
    image.PatientName, image.Modality, image.InstanceNumber = "Phantom", modality, number + 1
    image.ImagePositionPatient = [float(f"{mm:.6f}") for mm in (lps @ [0, 0, k, 1])[:3]]
    image.ImageOrientationPatient = [*(lps[:3, 0] / lengths[0]), *(lps[:3, 1] / lengths[1])]
    image.PixelSpacing = [float(f"{lengths[1]:.6f}"), float(f"{lengths[0]:.6f}")]
    image.SliceThickness = float(f"{lengths[2]:.6f}")
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.RescaleSlope, image.RescaleIntercept = 1, offset
    image.PixelData = stored.tobytes()
    return image


def save_camus(folder: Path, name: str, scans: Mapping[str, Scan]) -> None:
    """Write images and label maps as mhd with raw, and the patient's Info files, as in the first release."""
    diastole, systole = (float(scans[f"4CH_{instant}_gt"].header["descrip"].item()) for instant in ("ED", "ES"))
    about: dict[str, Any] = {"ED": 1, "ES": 12, "NbFrame": 20, "Sex": "F", "Age": 60, "ImageQuality": "Good"}
    about |= {"LVedv": diastole, "LVesv": systole, "LVef": round(100 * (1 - systole / diastole), 1)}
    with folder_written_beside(folder / "training" / name) as inside:
        for kind, scan in scans.items():
            write_itk(scan.voxels, scan.affine, inside / f"{name}_{kind}.mhd")
        for view in ("2CH", "4CH"):
            write_text(inside / f"Info_{view}.cfg", "".join(f"{key}: {value}\n" for key, value in about.items()))
