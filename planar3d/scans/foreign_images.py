"""FreeSurfer volumes and pairs of .hdr and .img, which nibabel reads and writes."""

import io
import math
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.fileholders import FileHolder
from nibabel.freesurfer.mghformat import MGHHeader

from planar3d.errors import ScanError, untrusted
from planar3d.scans.formats import PAIR_BYTES
from planar3d.scans.nifti import DEFLATE_LIMIT, start_of, unzipped
from planar3d.scans.nifti_header import MAXIMUM_VOXELS, header_with, mend_shape, mended

_MGH_BYTES = 284  # of the header, which FreeSurfer calls version 1
_MGH_VERSION = b"\0\0\0\x01"
_TRAILING = 2**20  # bytes of FreeSurfer's notes after the voxels, and of extensions after a header
_PAIR = re.compile(r"(.*\.)(?:hdr|img)((?:\.gz)?)", re.IGNORECASE)
ADVICE = "Copy it again, or convert it to NIfTI."


def is_mgh(path: Path) -> bool:
    """Whether a file is a FreeSurfer volume by its name and content, gzipped or not."""
    return path.name.lower().endswith((".mgz", ".mgh", ".mgh.gz")) and start_of(path).startswith(_MGH_VERSION)


def is_pair(path: Path) -> bool:
    """Whether a file is .hdr or .img and the other file is beside it."""
    if not _PAIR.fullmatch(path.name):
        return False
    header, voxels = pair_files(path)
    start = start_of(header)
    sizes = (PAIR_BYTES.to_bytes(4, "little"), PAIR_BYTES.to_bytes(4, "big"))
    return start[:4] in sizes and start[344:347] != b"n+1" and voxels.is_file()


def pair_files(path: Path) -> list[Path]:
    """The .hdr and .img files of a scan, given either; both names have the same case."""
    found = _PAIR.fullmatch(path.name)
    assert found is not None
    upper = path.name.removesuffix(found[2])[-3:].isupper()
    return [path.with_name(f"{found[1]}{kind.upper() if upper else kind}{found[2]}") for kind in ("hdr", "img")]


def read_mgh(path: Path, needed: str) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Read a FreeSurfer volume; see `read_pair`."""
    with untrusted(path, ADVICE):
        header = MGHHeader(start_of(path)[:_MGH_BYTES], check=False)
        content = _unpacked(path, _MGH_BYTES + _size(path, header, needed))
        image = nib.MGHImage.from_bytes(content)
        placed = int(np.frombuffer(content, ">i2", 1, 28)[0]) == 1  # goodRASFlag, which nibabel sets itself
        return _read(image, placed)


def read_pair(path: Path, needed: str) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Read the header and the voxels of a scan of two files, given either.

    The header has no sform and qform if the files do not define their axes, as in Analyze 7.5; voxels are float32
    (i, j, k, …), after the header's scaling. A `ScanError` names damaged or very large files, or colours.
    """
    with untrusted(path, ADVICE):
        about, voxels = pair_files(path)
        start = _unpacked(about, PAIR_BYTES)
        kind = nib.Nifti1Pair if start[344:347] == b"ni1" else nib.AnalyzeImage
        order = "<" if start[:4] == PAIR_BYTES.to_bytes(4, "little") else ">"
        header = kind.header_class(start[:PAIR_BYTES], order, check=False)
        if isinstance(header, nib.Nifti1Header):
            mended(about, header)
        else:
            mend_shape(about, header)
        content = _unpacked(voxels, _size(path, header, needed) + int(abs(header["vox_offset"])))
        files = {"header": header.binaryblock + start[PAIR_BYTES:], "image": content}
        image = kind.from_file_map({name: FileHolder(fileobj=io.BytesIO(data)) for name, data in files.items()})
        placed = kind is nib.Nifti1Pair and bool(image.header["sform_code"] or image.header["qform_code"])
        return _read(image, placed)


def write_nibabel(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write voxels (i, j, k) in the format of the file's ending."""
    kind = nib.Nifti1Pair if _PAIR.fullmatch(path.name) else nib.MGHImage
    known = path.with_name(path.name.replace(".mgh.gz", ".mgz"))  # the only name that nibabel has for it
    kind(voxels, affine).to_filename(known)
    known.replace(path)


def _size(path: Path, header: Any, needed: str) -> int:
    """Bytes of the voxels; an error if they are too many for a scan or not grey levels."""
    shape, kind = tuple(map(int, header.get_data_shape())), header.get_data_dtype()
    if kind.kind not in "iuf" or math.prod(shape) > MAXIMUM_VOXELS or not math.prod(shape) > 0:
        raise ScanError(
            f"{path} has the shape {shape} of {kind} voxels; {needed} of at most {MAXIMUM_VOXELS:,} voxels is needed."
        )
    return math.prod(shape) * kind.itemsize


def _read(image: Any, placed: bool) -> tuple[nib.Nifti1Header, np.ndarray]:
    header = header_with(image.affine, image.shape, placed)
    header["pixdim"][1:4] = image.header.get_zooms()[:3]
    return header, np.asarray(image.dataobj, np.float32)


def _unpacked(path: Path, size: int) -> bytes:
    """The bytes of a file, unzipped to its end, where gzip compares its checksum; an error if not so many."""
    most = size + _TRAILING
    possible = path.stat().st_size * DEFLATE_LIMIT  # Python allocates all requested bytes
    with path.open("rb") as file:
        content = unzipped(file)[0].read(min(most + 1, possible))
    if len(content) < size:
        raise ValueError(f"it ends after {len(content):,} of {size:,} bytes")
    if len(content) > most:
        raise ValueError(f"it has more bytes than the {most:,} that its header declares")
    return content


def files_of_mask(path: Path) -> list[Path]:
    """The files of a mask that is written to a path: two in some formats."""
    if _PAIR.fullmatch(path.name):
        return pair_files(path)
    return [path, path.with_suffix(".raw")] if path.suffix.lower() in (".mhd", ".nhdr") else [path]
