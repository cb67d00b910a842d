"""The bytes of a NIfTI file, read completely or refused before memory is allocated, and its intensities."""

import io
import math
import os
import re
import zlib
from gzip import BadGzipFile
from pathlib import Path
from typing import BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy

from planar3d.errors import ScanError
from planar3d.scans.formats import ANNEX, LOOK, describe, foreign_format
from planar3d.scans.nifti_header import LONGEST_HEADER, read_extensions, read_header

try:  # twice as fast
    from isal.igzip import GzipFile
    from isal.isal_zlib import error as isal_error
except ImportError:
    from gzip import GzipFile
    from zlib import error as isal_error

_MAGIC = b"\x1f\x8b"  # of gzip
DEFLATE_LIMIT = 1032  # deflate cannot shrink data further than this
_TRAILING_BYTES = 2**20  # that some programs write after the voxels
_KINDS = {"c": "complex", "V": "colour"}
_VOLUME = re.compile(r"(.+\.nii(?:\.gz)?)\[(\d+)\]", re.IGNORECASE)


def volume_of(path: Path) -> tuple[Path, int | None]:
    """The file and the number of the volume, from 0, in a path such as `scan.nii.gz[2]` (AFNI's notation)."""
    found = _VOLUME.fullmatch(path.name)
    return (path.with_name(found[1]), int(found[2])) if found and not os.path.lexists(path) else (path, None)


def read_nifti(path: Path, needed: str) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Read a file, or one of its volumes as in `volume_of`: its header, and scaled voxels, float32 (i, j, k).

    Raises:
        ScanError: as `read_whole`; voxels that are not grey levels, but `needed`; a volume that does not exist.
    """
    file, number = volume_of(path)
    header, content = read_whole(file)
    kind = header.get_data_dtype().kind
    if kind not in "iuf":
        raise ScanError(f"{path} has {_KINDS.get(kind, kind)} voxels; {needed} is needed. Export it in that form.")
    if number is not None:
        shape = header.get_data_shape()
        series = [length for length in shape[3:] if length > 1]  # AFNI has it along the fifth axis, after one of 1
        if len(shape) < 4 or len(series) > 1 or number >= math.prod(series):
            raise ScanError(f"{file} has the shape {shape} and no volume {number}; volumes are numbered from 0.")
        bytes_each = math.prod(shape[:3]) * header.get_data_dtype().itemsize
        first = int(header["vox_offset"]) + number * bytes_each
        content = content[: int(header["vox_offset"])] + content[first : first + bytes_each]
        header.set_data_shape(shape[:3])
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # values beyond float32 are refused as infinite or NaN
            stored = ArrayProxy(io.BytesIO(content), header)
            if (stored.slope, stored.inter) != (1, 0):
                return header, np.asarray(stored, dtype=np.float32)
            voxels = np.frombuffer(content, stored.dtype, math.prod(stored.shape), stored.offset)  # without copies
            return header, voxels.reshape(stored.shape, order="F").astype(np.float32)
    except (nib.spatialimages.HeaderDataError, ValueError, OSError) as error:
        raise ScanError(f"{path} is not a readable NIfTI file ({error}). Convert the original data again.") from None


def read_whole(path: Path) -> tuple[nib.Nifti1Header, bytes]:
    """Read a file's header and all its bytes, unzipped to the end, where gzip compares its checksum.

    The content of the file decides how it is read, not its name.

    Raises:
        ScanError: the file is missing, has another format, is truncated or damaged, or declares an implausible size.
    """
    if why := why_no_file(path):
        raise ScanError(why)
    size = os.path.getsize(path)
    try:
        with open(path, "rb") as file:
            stream, zipped = unzipped(file)
            start = stream.read(max(LONGEST_HEADER, LOOK))
            header = read_header(path, start)
            if header is None:
                raise ScanError(f"{path} {foreign_format(path, start, zipped)}")
            bytes_each, offset = header.get_data_dtype().itemsize, int(header["vox_offset"])
            declared = offset + math.prod(header.get_data_shape()) * bytes_each
            if declared > (size * DEFLATE_LIMIT if zipped else size):
                raise ScanError(
                    f"{path} declares {declared:,} bytes of voxels, but its {size:,} bytes cannot hold them. It is "
                    "truncated or its header is damaged; copy or convert it again."
                )
            content = start + stream.read(declared + _TRAILING_BYTES - len(start))
            if stream.read(1):
                raise ScanError(
                    f"{path} has more than 1 MiB after its voxels; its header is damaged. Convert it again."
                )
    except (EOFError, BadGzipFile, zlib.error, isal_error) as error:
        raise ScanError(f"{path} is a damaged gzip file ({error}). Copy or convert it again.") from None
    if len(content) < declared:
        raise ScanError(
            f"{path} is truncated: it has {len(content):,} of {declared:,} bytes. Copy or convert it again."
        )
    read_extensions(path, header, content)
    return header, content


def header_of(path: Path) -> nib.Nifti1Header | None:
    """The header of a file, or of one volume of it, as by `read_header` from its first bytes; None if unreadable."""
    file, number = volume_of(path)
    header = read_header(file, start_of(file))
    if header is not None and number is not None:
        header.set_data_shape(header.get_data_shape()[:3])
    return header


def start_of(path: Path, most: int = LONGEST_HEADER) -> bytes:
    """The first bytes of a file, unzipped if it is zipped; none if it cannot be read."""
    if not path.is_file():  # a pipe would be waited for
        return b""
    try:
        with open(path, "rb") as file:
            return unzipped(file)[0].read(most)
    except (OSError, EOFError, zlib.error, isal_error):
        return b""


def unzipped(file: BinaryIO) -> tuple[BinaryIO, bool]:
    """A file's content, unzipped if it is zipped, which its first bytes show; and whether it is."""
    zipped = file.read(len(_MAGIC)) == _MAGIC
    file.seek(0)
    return (cast(BinaryIO, GzipFile(fileobj=file)) if zipped else file), zipped


def why_no_file(path: Path) -> str:
    """Why there is no file at a path, with advice; empty if there is one."""
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        if "annex/objects" in Path(target).as_posix():
            return f"{path} {describe(ANNEX, path)}"
        return f"{path} is a link to {target}, which does not exist. Fix the link, or name the scan itself."
    if not path.exists():
        return f"{path} does not exist."
    if not path.is_file():
        return f"{path} is a folder or device, not a .nii or .nii.gz file; name a scan in it."
    return ""
