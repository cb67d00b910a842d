"""DICOM series made of volumes in space, in the habits of several vendors."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

HABITS: dict[str, dict[str, Any]] = {
    "siemens": {"Manufacturer": "SIEMENS", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"], "ScanningSequence": "IR"},
    "ge": {"Manufacturer": "GE MEDICAL SYSTEMS", "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]},
    "philips": {"Manufacturer": "Philips Medical Systems", "ImageType": ["ORIGINAL", "PRIMARY", "M_IR", "M", "IR"]},
    "canon": {"Manufacturer": "TOSHIBA_MEC", "ImageType": ["ORIGINAL", "PRIMARY"]},
}
FLAIR_TIMES = {"RepetitionTime": 9000, "EchoTime": 120, "InversionTime": 2500}
T1_TIMES = {"RepetitionTime": 500, "EchoTime": 9}

SLICES = 9
VOXELS = np.random.default_rng(0).integers(-200, 3000, (20, 24, SLICES)).astype(np.int16)
LESIONS = np.zeros(VOXELS.shape, np.uint8)
LESIONS[3:8, 10:12, 2:5] = LESIONS[15, 20, 0] = LESIONS[12:14, 3:5, 7] = LESIONS[13:16, 4, 8] = 1


def turned(angles: tuple[float, float, float], directions: np.ndarray) -> np.ndarray:
    """An affine whose axes are `directions`, turned by angles about x, y and z in degrees."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ directions
    affine[:3, 3] = 50, 60, -30
    return affine


AXIAL = turned((0, 0, 0), np.diag([-0.9, -0.9, 6.5]))
OBLIQUE = turned((12, -7, 20), np.diag([-0.9, -0.9, 6.5]))
# Columns run to posterior, rows to inferior, slices to the right, as scanners store sagittal images.
SAGITTAL = turned((3, 0, -5), np.array([[0, 0, 1], [-0.9, 0, 0], [0, -0.9, 0]]))


# Places, and what `write_series` is given besides; None for an enhanced file.
SERIES: dict[str, tuple[np.ndarray, Any]] = {
    "axial": (AXIAL, {}),
    "oblique": (OBLIQUE, {}),
    "sagittal": (SAGITTAL, {}),
    "downwards": (OBLIQUE @ np.diag([1, 1, -1, 1]), {}),
    "reversed": (OBLIQUE, {"order": list(range(SLICES, 0, -1))}),
    "interleaved": (AXIAL, {"order": [*range(1, SLICES + 1, 2), *range(2, SLICES + 1, 2)]}),
    "enhanced": (OBLIQUE, None),
}


def write_series(
    folder: Path,
    voxels: np.ndarray,
    affine: np.ndarray,
    description: str = "FLAIR",
    number: int = 5,
    vendor: str = "siemens",
    order: Sequence[int] | None = None,
    name: str = "{instance:04d}.dcm",
    only: Sequence[int] | None = None,
    **elements: Any,
) -> list[Path]:
    """Write a volume as one DICOM file a slice.

    Args:
        folder: where they go; made if it is not there.
        voxels: integers (i, j, k): i along the columns of an image, j along its rows, k from slice to slice.
        affine: 4×4, (i, j, k, 1) to (right, anterior, superior) in mm; without shear.
        description: SeriesDescription.
        number: SeriesNumber.
        vendor: whose habits, see `HABITS`.
        order: the instance number, from 1, of each slice; the slices' own order if None.
        name: of the files, with `instance` and `number` in braces.
        only: the slices that are written; all if None.
        elements: further DICOM elements by keyword, or other values of those written; None takes one away.

    Returns:
        The files in the order of the slices.
    """
    from pydicom.uid import MRImageStorage, generate_uid

    series, frame = generate_uid(), generate_uid()
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for k in range(voxels.shape[2]) if only is None else only:
        instance = k + 1 if order is None else order[k]
        dataset = _image(voxels[:, :, k].T, MRImageStorage)
        dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = series, frame
        dataset.InstanceNumber = instance
        dataset.file_meta.MediaStorageSOPClassUID = elements.get("SOPClassUID") or dataset.SOPClassUID
        for keyword, value in (_plane(affine, k) | _common(affine, description, number, vendor) | elements).items():
            setattr(dataset, keyword, value)
            if value is None:
                delattr(dataset, keyword)
        files.append(folder / name.format(instance=instance, number=number))
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def write_enhanced(path: Path, voxels: np.ndarray, affine: np.ndarray, description: str = "FLAIR") -> Path:
    """Write a volume as one enhanced multi-frame file."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items
    from pydicom.uid import EnhancedMRImageStorage, generate_uid

    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = _image(voxels.transpose(2, 1, 0), EnhancedMRImageStorage)
    dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID, dataset.InstanceNumber = generate_uid(), generate_uid(), 1
    for keyword, value in _common(affine, description, 5, "philips").items():
        if keyword not in ("SliceThickness", "SpacingBetweenSlices"):
            setattr(dataset, keyword, value)
    dataset.NumberOfFrames = voxels.shape[2]
    dataset.AcquisitionContrast, dataset.ImageType = "FLUID_ATTENUATED", ["ORIGINAL", "PRIMARY", "FLAIR", "NONE"]
    frames = []
    for k in range(voxels.shape[2]):
        plane, measures, position, orientation, content = (Dataset() for _ in range(5))
        of_slice, common = _plane(affine, k), _common(affine, "", 5, "philips")
        position.ImagePositionPatient = of_slice["ImagePositionPatient"]
        orientation.ImageOrientationPatient = of_slice["ImageOrientationPatient"]
        measures.PixelSpacing, measures.SliceThickness = of_slice["PixelSpacing"], common["SliceThickness"]
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", k + 1, [1, k + 1]
        plane.PlanePositionSequence, plane.PlaneOrientationSequence = Items([position]), Items([orientation])
        plane.PixelMeasuresSequence, plane.FrameContentSequence = Items([measures]), Items([content])
        frames.append(plane)
    dataset.PerFrameFunctionalGroupsSequence = Items(frames)
    dataset.SharedFunctionalGroupsSequence = Items([Dataset()])
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_kind(folder: Path, kind: str) -> np.ndarray:
    """Write `VOXELS` as one of `SERIES`; return where they lie."""
    affine, habits = SERIES[kind]
    if habits is None:
        write_enhanced(folder / "image", VOXELS, affine)
    else:
        write_series(folder, VOXELS, affine, **habits)
    return affine


def find_series(files: Iterable[Path]) -> list[Any]:
    """The series of files, all of which can be used."""
    from planar3d.errors import ScanError
    from planar3d.scans.dicom import find_dicom_series

    problems: dict[Path, str] = {}
    found = find_dicom_series(files, problems)
    if problems:
        raise ScanError(next(iter(problems.values())))
    return found


def segmented(folder: Path, lesions: np.ndarray = LESIONS, affine: np.ndarray = OBLIQUE) -> Any:
    """The mask that lies where `lesions` does, as `predict` makes it of the files of a folder; and the series."""
    from planar3d.scans.dicom_conversion import read_dicom_series
    from planar3d.scans.volume import Scan

    (series,) = find_series(folder.iterdir())
    scan = read_dicom_series(series)
    axes = np.linalg.inv(affine) @ scan.affine
    places = np.indices(scan.voxels.shape).reshape(3, -1).T @ axes[:3, :3].T + axes[:3, 3]
    mask = lesions[tuple(np.rint(places).astype(int).T)].reshape(scan.voxels.shape)
    return Scan(mask, scan.header, scan.path), series


def _image(pixels: np.ndarray, sop_class: str) -> Any:
    """A data set with pixels ([frames,] rows, columns) and what every image has."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PatientID, dataset.PatientName, dataset.StudyInstanceUID = "1", "Nobody", generate_uid(entropy_srcs=["1"])
    dataset.StudyDate, dataset.StudyTime, dataset.AcquisitionTime = "20200101", "120000", "120000"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes()
    return dataset


def _common(affine: np.ndarray, description: str, number: int, vendor: str) -> dict[str, Any]:
    apart = float(np.linalg.norm(affine[:3, 2]))
    return {
        "Modality": "MR",
        "SeriesDescription": description,
        "SeriesNumber": number,
        "SliceThickness": apart,
        "SpacingBetweenSlices": apart,
        "MRAcquisitionType": "2D",
        **FLAIR_TIMES,
        **HABITS[vendor],
    }


def _plane(affine: np.ndarray, k: int) -> dict[str, list[float]]:
    """Where slice k lies, in DICOM's (left, posterior, superior)."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    columns, rows = (lps[:3, axis] / np.linalg.norm(lps[:3, axis]) for axis in (0, 1))
    return {
        "ImageOrientationPatient": [_decimal(x) for x in (*columns, *rows)],
        "ImagePositionPatient": [_decimal(x) for x in (lps @ [0, 0, k, 1])[:3]],
        "PixelSpacing": [_decimal(np.linalg.norm(lps[:3, axis])) for axis in (1, 0)],
    }


def _decimal(value: float) -> float:
    """What DICOM's decimal strings of at most 16 characters hold."""
    return float(f"{value:.9g}") if abs(value) > 1e-6 else 0.0


def in_world(scan: Any, voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The voxels of a scan in the order of `voxels`: of each the one that lies at the same place, within 0.01 mm."""
    places = np.indices(voxels.shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    back = np.linalg.inv(scan.affine)
    indices = np.rint(places @ back[:3, :3].T + back[:3, 3]).astype(int)
    assert (indices >= 0).all() and (indices < scan.voxels.shape).all()
    apart = indices @ scan.affine[:3, :3].T + scan.affine[:3, 3] - places
    assert np.abs(apart).max() < 0.01
    return scan.voxels[tuple(indices.T)].reshape(voxels.shape)


def change(files: Sequence[Path], edit: Callable[[int, Any], object]) -> None:
    """Edit the data sets of files, each given with its place among them."""
    from pydicom import dcmread

    for k, path in enumerate(files):
        dataset = dcmread(path)
        edit(k, dataset)
        dataset.save_as(path)
