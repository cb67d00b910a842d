"""A scan: voxels with their geometry, checked when read and written atomically."""

import functools
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel import orientations

from planar3d.errors import ScanError, path_of, reading
from planar3d.files import written_beside
from planar3d.scans.checks import (
    MASK_TOLERANCE,
    are_labels,
    faults_of_contrast,
    faults_of_file,
    labels_of,
    refuse,
)
from planar3d.scans.geometry import corner_shift, voxel_mm3
from planar3d.scans.readers import reader_of

CORNER_TOLERANCE = 0.1  # voxels
_MOST_LABELS = 50  # more different values are those of a scan
_ADVICE = {  # for volumes on different grids
    "mask": (
        "Look at both in a viewer: if the lesions are in place, resample the mask to the scan (nearest neighbour); if "
        "not, the mask belongs to another scan or its header is wrong."
    ),
    "image": "A case needs all images on one grid. Register and resample it to the other, or fix a wrong header.",
}


@dataclass(frozen=True)
class Scan:
    """A 3-D volume and its geometry.

    Attributes:
        voxels: (i, j, k) in the storage order of the file.
        header: the NIfTI header, with sform, qform, their codes, and zooms in mm.
        path: the file it was read from, if any.
    """

    voxels: np.ndarray
    header: nib.Nifti1Header
    path: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        are_numbers = isinstance(self.voxels, np.ndarray) and self.voxels.dtype.kind in "biuf"
        if not are_numbers or not isinstance(self.header, nib.Nifti1Header):
            given = f"{type(self.voxels).__name__} and {type(self.header).__name__}"
            raise ScanError(
                "planar3d.Scan(voxels, header) takes an array of numbers and a NIfTI header, e.g. "
                f"nibabel.Nifti1Image(voxels, affine).header; got {given}."
            )

    @property
    def affine(self) -> np.ndarray:
        """4×4: voxel indices (i, j, k, 1) to world coordinates in mm (right, anterior, superior)."""
        return self.header.get_best_affine()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along (i, j, k) in mm."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))  # type: ignore[return-value]

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel in mm³, also on sheared grids."""
        return voxel_mm3(self.affine)

    @functools.cached_property
    def limits(self) -> tuple[float, float]:
        """The lowest and highest value of all voxels, computed once; NaN if any voxel is NaN."""
        return float(self.voxels.min()), float(self.voxels.max())

    def save(self, path: str | Path) -> Path:
        """Write a NIfTI file atomically, gzipped if its name ends in .gz.

        Voxels keep their type, but bool becomes uint8, and float16 float32; shape, affine, codes and zooms are the
        header's.
        """
        path = path_of(path, "The file to write", ScanError)
        if not path.name.endswith((".nii", ".nii.gz")):
            raise ScanError(f"{path}: a scan is saved as .nii or .nii.gz; choose such a name.")
        known = {"bool": np.uint8, "float16": np.float32}.get(self.voxels.dtype.name, self.voxels.dtype)
        voxels = self.voxels.astype(known, copy=False)
        header = self.header.copy()
        header.set_data_dtype(voxels.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        with written_beside(path) as temporary:
            nib.save(kind(voxels, None, header), temporary)
        return path


def read_scan(
    path: str | Path, assume_affine: bool = False, contrast: str = "FLAIR", like: Scan | None = None, flat: bool = False
) -> Scan:
    """Read a whole NIfTI scan and check it.

    Args:
        path: a NIfTI file, gzipped or not.
        assume_affine: accept a file with neither sform nor qform, and assume that it is stored left, anterior, superior
            (nibabel's convention) with the voxel sizes of the header; or like `like`.
        contrast: the expected contrast, for error messages.
        like: another image of the case.
        flat: accept a two-dimensional image as a volume with a single slice.

    Returns:
        A scan with float32 voxels (i, j, k), intensities after the header's scaling. Trailing axes of length 1 are
        squeezed.

    Raises:
        ScanError: the file is missing, damaged, not a single volume, without geometry, or without usable intensities.
    """
    scan = read_volume(path, like, assume_affine, f"a single grey-scale {contrast} volume", flat)
    refuse(scan, faults_of_contrast(scan))
    return scan


def read_labels(path: str | Path, scan: Scan | None = None, assume_affine: bool = False) -> Scan:
    """Read a label map, on the grid of `scan` if one is given; arguments are those of `read_mask`.

    Without a scan, a two-dimensional image is a volume with a single slice.

    Returns:
        A scan with the labels as uint8 voxels; if `scan` is given, on its grid and with its header.

    Raises:
        ScanError: as `read_scan`; the map does not match the scan, see `on_grid_of`; or its values are not whole
            numbers from 0 to 255, within 0.001.
    """
    found = _read_on(scan, path, assume_affine, "a label map, a single volume of whole numbers,", flat=scan is None)
    return Scan(labels_of(found), found.header, found.path)


def read_mask(path: str | Path, scan: Scan | None = None, assume_affine: bool | None = False) -> Scan:
    """Read a lesion mask, on the grid of `scan` if one is given.

    Args:
        scan: the scan of the mask.
        assume_affine: accept a file with neither sform nor qform, and assume that it is stored like `scan`, or as in
            `read_scan` without one; None if nothing can be assumed, as for a mask in MNI space.

    Returns:
        A scan with uint8 voxels {0, 1}; if `scan` is given, on its grid and with its header.

    Raises:
        ScanError: as `read_scan`; the mask does not match the scan, see `on_grid_of`; or its labels are not {0, 1}
            within 0.001, or the same everywhere.
    """
    mask = _read_on(scan, path, assume_affine, "a lesion mask, a single volume of {0, 1},")
    low, high = mask.limits
    if abs(low) > 2 * MASK_TOLERANCE >= high - low:
        raise ScanError(f"{path} is {high:g} everywhere; a lesion mask of {{0, 1}} is needed. Name another file.")
    labels = np.rint(mask.voxels)
    if not are_labels(mask.voxels, labels, 1):
        raise ScanError(f"{path} {_labels_sentence(mask)}")
    return Scan(labels.astype(np.uint8), mask.header, mask.path)


def on_grid_of(scan: Scan, mask: Scan, kind: Literal["mask", "image"] = "mask") -> Scan:
    """A mask, or another volume, exactly on the grid of its scan: axes are swapped and flipped, not resampled.

    Raises:
        ScanError: the grids differ: a corner is more than a tenth of a voxel away.
    """
    turn = orientations.io_orientation(np.linalg.inv(scan.affine) @ mask.affine)
    affine = mask.affine @ orientations.inv_ornt_aff(turn, mask.voxels.shape)
    voxels = orientations.apply_orientation(mask.voxels, turn)
    fits = voxels.shape == scan.voxels.shape
    shift = corner_shift(scan.affine, affine if fits else mask.affine, scan.voxels.shape)
    if fits and shift <= CORNER_TOLERANCE:
        return Scan(voxels, scan.header, mask.path)
    one, other = mask.path or f"The {kind}", scan.path or ("its scan" if kind == "mask" else "another")
    if not fits and mask.voxels.shape != scan.voxels.shape:
        raise ScanError(f"{one} has shape {mask.voxels.shape}, but {other} has {scan.voxels.shape}. {_ADVICE[kind]}")
    raise ScanError(
        f"{one} does not match {other} in any order of its axes: a corner is {shift:.1f} voxels away; at most "
        f"{CORNER_TOLERANCE} is accepted. {_ADVICE[kind]}"
    )


def _read_on(scan: Scan | None, path: str | Path, assume_affine: bool | None, needed: str, flat: bool = False) -> Scan:
    flat |= scan is not None and scan.voxels.shape[2] == 1
    found = read_volume(path, scan, assume_affine, needed, flat)
    return found if scan is None else on_grid_of(scan, found)


def read_volume(
    path: str | Path, like: Scan | None, assume_affine: bool | None, needed: str, flat: bool = False
) -> Scan:
    """Read voxels as float32 and check all but contrast; arguments and errors are those of `read_scan` and `read_mask`.

    Args:
        needed: the expected kind of file, for error messages.
    """
    if not isinstance(path, str | os.PathLike):
        raise ScanError(
            f"A scan is a file's name or a planar3d.Scan; got {type(path).__name__}. Voxels become a scan with their "
            "geometry: Scan(voxels, header), e.g. with the header of another scan on their grid."
        )
    path = Path(path)
    with reading(path):
        header, voxels = reader_of(path).read(path, needed)
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
        header.set_data_shape(voxels.shape)
    if flat and voxels.ndim == 2:
        voxels = voxels[..., None]
        header.set_data_shape(voxels.shape)
        header["pixdim"][3] = header["pixdim"][3] or 1
    if header["sform_code"] == 0 and header["qform_code"] == 0 and assume_affine:
        header.set_sform(header.get_base_affine() if like is None else like.affine, code=1)
    scan = Scan(voxels, header, path)
    stored = "its axes run left, anterior, superior" if like is None else "it is stored voxel by voxel like its scan"
    assumed = f"If {stored}, add --assume-affine; otherwise convert the original data again."
    advice = "Convert the original data again." if assume_affine is None else assumed
    refuse(scan, faults_of_file(scan, needed, advice, flat))
    return scan


def is_placed(path: Path) -> bool:
    """Whether an image defines its orientation; errors are those of reading it."""
    with reading(path):
        header, _ = reader_of(path).read(path, "a single volume")
    return bool(header["sform_code"] or header["qform_code"])


def _labels_sentence(mask: Scan) -> str:
    found = np.unique(mask.voxels)
    if len(found) > _MOST_LABELS and found[-1] > 1:
        return f"has {len(found):,} different values, {found[0]:g} to {found[-1]:g}; name the lesion mask of {{0, 1}}."
    shown = ", ".join(f"{v:g}" for v in found[:6]) + (", …" if len(found) > 6 else "")
    return (
        f"has the labels {{{shown}}}; a lesion mask of {{0, 1}} is needed. Keep only the values of lesions, LOW to "
        f"HIGH, e.g. with: fslmaths {shlex.quote(str(mask.path))} -thr LOW -uthr HIGH -abs -bin mask.nii.gz"
    )
