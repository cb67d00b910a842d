"""The bytes of a NIfTI file, read whole or refused before memory is asked for."""

import os
import zlib
from gzip import BadGzipFile
from pathlib import Path

import nibabel as nib

from planar3d.errors import ScanError
from planar3d.scans.formats import ANNEX, LOOK, describe, foreign_format
from planar3d.scans.nifti_header import LONGEST_HEADER, read_extensions, read_header, voxel_bytes

try:  # twice as fast
    from isal.igzip import GzipFile
    from isal.isal_zlib import error as isal_error
except ImportError:
    from gzip import GzipFile
    from zlib import error as isal_error

_MAGIC = b"\x1f\x8b"  # of gzip
_DEFLATE_LIMIT = 1032  # deflate cannot shrink data further than this
_TRAILING_BYTES = 2**20  # what some writers leave behind the voxels


def read_whole(path: Path) -> tuple[nib.Nifti1Header, bytes]:
    """Read a file's header and all its bytes, unzipped, to the end: only there does gzip compare its checksum.

    What the file holds decides how it is read, whatever its name ends in.

    Raises:
        ScanError: the file is missing, of another format, truncated, damaged, or declares a size that no scan has.
    """
    _check_is_file(path)
    size = os.path.getsize(path)
    try:
        with open(path, "rb") as file:
            zipped = file.read(len(_MAGIC)) == _MAGIC
            file.seek(0)
            stream = GzipFile(fileobj=file) if zipped else file
            start = stream.read(max(LONGEST_HEADER, LOOK))
            header = read_header(path, start)
            if header is None:
                raise ScanError(f"{path} {foreign_format(path, start, zipped)}")
            declared = int(header["vox_offset"]) + voxel_bytes(header)
            if declared > (size * _DEFLATE_LIMIT if zipped else size):
                raise ScanError(
                    f"{path} declares {declared:,} bytes of voxels, but its {size:,} bytes cannot hold them. It is "
                    "truncated or its header is damaged; copy or convert it again."
                )
            content = start + stream.read(declared + _TRAILING_BYTES - len(start))
            if stream.read(1):
                raise ScanError(f"{path} goes on for more than 1 MiB behind its voxels. Its header is damaged.")
    except (EOFError, BadGzipFile, zlib.error, isal_error) as error:
        raise ScanError(f"{path} is a damaged gzip file ({error}). Copy or convert it again.") from None
    if len(content) < declared:
        raise ScanError(
            f"{path} is truncated: its header needs {declared:,} bytes, it has {len(content):,}. Copy or convert it "
            "again."
        )
    read_extensions(path, header, content)
    return header, content


def _check_is_file(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        if "annex/objects" in Path(target).as_posix():
            raise ScanError(f"{path} {describe(ANNEX, path)}")
        raise ScanError(f"{path} is a link to {target}, which does not exist. Mend the link, or name the scan itself.")
    if not path.exists():
        raise ScanError(f"{path} does not exist.")
    if not path.is_file():
        raise ScanError(f"{path} is not a .nii or .nii.gz file but a folder or device; name a scan in it.")
