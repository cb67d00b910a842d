"""The bytes of a NIfTI file, read whole or refused before memory is asked for."""

import math
import os
from pathlib import Path

import nibabel as nib

from planar3d.errors import ScanError
from planar3d.scans.gunzip import GunzipError, GunzipStream

MAXIMUM_VOXELS = 2**27  # 512 MiB in float32; the largest scan of MSSEG 2016 has 38 million
_MAXIMUM_LENGTH = 1024  # voxels along an axis
_DEFLATE_LIMIT = 1032  # deflate cannot shrink data further than this
_TRAILING_BYTES = 2**20  # what some writers leave behind the voxels


def read_whole(path: Path) -> bytes:
    """Read a file's bytes, unzipped, to the end: only there does gzip compare its checksum.

    Raises:
        ScanError: the file is missing, of another format, truncated, damaged, or declares a size that no scan has.
    """
    if not path.exists():
        raise ScanError(f"{path} does not exist.")
    if not path.name.endswith((".nii", ".nii.gz")) or not path.is_file():
        raise ScanError(f"{path} is not a .nii or .nii.gz file; convert the scan to NIfTI first, e.g. with dcm2niix.")
    size = os.path.getsize(path)
    zipped = path.name.endswith(".gz")
    try:
        with open(path, "rb") as file:
            stream = GunzipStream(file) if zipped else file
            start = stream.read(540)
            declared = _declared_bytes(path, start)
            possible = size * _DEFLATE_LIMIT if zipped else size
            if declared > possible:
                raise ScanError(
                    f"{path} declares {declared:,} bytes of voxels, but its {size:,} bytes cannot hold them. It is "
                    "truncated or its header is damaged; copy or convert it again."
                )
            content = start + stream.read(declared + _TRAILING_BYTES - len(start))
            if stream.read(1):
                raise ScanError(f"{path} goes on for more than 1 MiB behind its voxels. Its header is damaged.")
    except GunzipError as error:
        raise ScanError(f"{path} is a damaged gzip file ({error}). Copy or convert it again.") from None
    if len(content) < declared:
        raise ScanError(
            f"{path} is truncated: its header needs {declared:,} bytes, it has {len(content):,}. Copy or convert it "
            "again."
        )
    return content


def _declared_bytes(path: Path, start: bytes) -> int:
    """Where the voxels end, after the header alone; sizes that nobody scans are refused before memory is asked for."""
    try:
        header = image_class(start).header_class(start[: image_class(start).header_class.sizeof_hdr], check=False)
        shape = tuple(int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])])
        item_bytes = header.get_data_dtype().itemsize
        offset = int(header["vox_offset"])
    except (nib.spatialimages.HeaderDataError, ValueError, KeyError, OverflowError) as error:
        raise ScanError(f"{path} is not a NIfTI file ({error}). Convert the scan to NIfTI first.") from None
    if not shape or min(shape) < 1 or offset < 0:
        raise ScanError(f"{path} declares the shape {shape}; it holds no voxels. Convert the original data again.")
    voxels = math.prod(shape)
    if voxels > MAXIMUM_VOXELS or max(shape) > _MAXIMUM_LENGTH:
        raise ScanError(
            f"{path} declares {voxels:,} voxels {shape}; no head scan has more than {MAXIMUM_VOXELS:,}, or more than "
            f"{_MAXIMUM_LENGTH:,} along an axis. Its header is damaged; convert the original data again."
        )
    return offset + voxels * item_bytes


def image_class(start: bytes) -> type[nib.Nifti1Image]:
    """nibabel's class for the first bytes of a single-file NIfTI; a `ValueError` if they are none."""
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        size = kind.header_class.sizeof_hdr
        if size in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")) and len(start) >= size:
            if kind is nib.Nifti1Image and start[344:347] != b"n+1":
                break
            return kind
    raise ValueError("no single-file NIfTI header")
