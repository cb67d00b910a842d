"""Images in other formats than NIfTI, with their voxels in the same file or beside it.

FreeSurfer volumes and pairs of .hdr and .img are read and written by nibabel, MetaImage and NRRD files by SimpleITK.
"""

import io
import math
import os
import re
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.spatialimages import HeaderDataError

from planar3d.errors import ScanError
from planar3d.extras import extra
from planar3d.scans.formats import PAIR_BYTES
from planar3d.scans.nifti import isal_error, unzipped
from planar3d.scans.nifti_header import MAXIMUM_VOXELS, header_with

_MGH_BYTES = 284  # of the header, which FreeSurfer calls version 1
_MGH_VERSION = b"\0\0\0\x01"
_LONGEST = 2**16  # bytes of a header of ITK
_TRAILING = 2**20  # bytes of FreeSurfer's notes after the voxels
_PAIR = re.compile(r"(.*\.)(?:hdr|img)((?:\.gz)?)", re.IGNORECASE)
_ADVICE = "Copy it again, or convert it to NIfTI."
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's axes run left and posterior
# By ending: first bytes, ITK's reader, the line that names a separate file of voxels, and what defines the axes: in an
# NRRD file, whose header ends at an empty line, also their anatomical names.
_META = (
    (b"ObjectType", b"NDims", b"Comment"),
    "MetaImageIO",
    re.compile(rb"^ElementDataFile\s*=\s*(.+?)\s*$", re.M),
    re.compile(rb"^(TransformMatrix|Orientation|Rotation)\s*=", re.M),
)
_NRRD = (
    (b"NRRD0",),
    "NrrdImageIO",
    re.compile(rb"^data ?file:\s*(.+?)\s*$", re.M | re.I),
    re.compile(rb"\A(?=.*^space directions:).*^space: *(right|left|[rl][ap]s)", re.M | re.I | re.S),
)
_KINDS = {".mhd": _META, ".mha": _META, ".nrrd": _NRRD, ".nhdr": _NRRD}


def is_mgh(path: Path) -> bool:
    """Whether a file is a FreeSurfer volume by its name and content, gzipped or not."""
    return path.name.lower().endswith((".mgz", ".mgh", ".mgh.gz")) and _start(path).startswith(_MGH_VERSION)


def is_pair(path: Path) -> bool:
    """Whether a file is .hdr or .img and the other file is beside it."""
    if not _PAIR.fullmatch(path.name):
        return False
    header, voxels = pair_files(path)
    start = _start(header)
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
    try:
        header = MGHHeader(_unpacked(path, _MGH_BYTES, at_most=False), check=False)
        content = _unpacked(path, _MGH_BYTES + _size(path, header, needed) + _TRAILING)
        image = nib.MGHImage.from_bytes(content)
        placed = int(np.frombuffer(content, ">i2", 1, 28)[0]) == 1  # goodRASFlag, which nibabel sets itself
        return _read(image, placed)
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def read_pair(path: Path, needed: str) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Read the header and the voxels of a scan of two files, given either.

    The header has no sform and qform if the files do not define their axes, as in Analyze 7.5; voxels are float32
    (i, j, k, …), after the header's scaling. A `ScanError` names damaged or very large files, or colours.
    """
    try:
        about, voxels = pair_files(path)
        start = _unpacked(about, PAIR_BYTES + _TRAILING)
        kind = nib.Nifti1Pair if start[344:347] == b"ni1" else nib.AnalyzeImage
        header = kind.header_class(start[:PAIR_BYTES], check=False)
        content = _unpacked(voxels, _size(path, header, needed) + int(abs(header["vox_offset"])) + _TRAILING)
        files = {"header": start, "image": content}
        image = kind.from_file_map({name: FileHolder(fileobj=io.BytesIO(data)) for name, data in files.items()})
        placed = kind is nib.Nifti1Pair and bool(image.header["sform_code"] or image.header["qform_code"])
        return _read(image, placed)
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def write_nibabel(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write voxels (i, j, k) in the format of the file's ending."""
    kind = nib.Nifti1Pair if _PAIR.fullmatch(path.name) else nib.MGHImage
    kind(voxels, affine).to_filename(path)


_DAMAGE: tuple[type[BaseException], ...] = (
    *(OSError, EOFError, KeyError, ValueError, TypeError, OverflowError, zlib.error, isal_error),
    *(HeaderDataError, ImageFileError),
)


def _damaged(path: Path, error: BaseException) -> ScanError:
    said = "".join(str(error).strip().splitlines()[:1])
    return ScanError(f"{path} is damaged and cannot be read ({said}). {_ADVICE}")


def _size(path: Path, header: Any, needed: str) -> int:
    """Bytes of the voxels; an error if they are too many for a scan or not grey levels."""
    shape, kind = tuple(map(int, header.get_data_shape())), header.get_data_dtype()
    if kind.kind not in "iuf" or math.prod(shape) > MAXIMUM_VOXELS or not math.prod(shape) > 0:
        raise ScanError(
            f"{path} has the shape {shape} of {kind} voxels; {needed} of at most {MAXIMUM_VOXELS:,} voxels is needed."
        )
    return math.prod(shape) * kind.itemsize


def _read(image: Any, placed: bool) -> tuple[nib.Nifti1Header, np.ndarray]:
    header = header_with(image.affine, image.shape)
    header["pixdim"][1:4] = image.header.get_zooms()[:3]
    if not placed:
        header["sform_code"] = header["qform_code"] = 0
    return header, np.asarray(image.dataobj, np.float32)


def _start(path: Path) -> bytes:
    try:
        return _unpacked(path, PAIR_BYTES, at_most=False)
    except _DAMAGE:
        return b""


def _unpacked(path: Path, size: int, at_most: bool = True) -> bytes:
    """The bytes of a file, unzipped to its end, where gzip compares its checksum; or only its first bytes."""
    with path.open("rb") as file:
        content = unzipped(file)[0].read(size + at_most)
    if at_most and len(content) > size:
        raise ValueError(f"it has more bytes than the {size:,} that its header declares")
    return content


def is_itk_image(path: Path) -> bool:
    """Whether a file is a MetaImage or NRRD file or header, by its name and content."""
    kind = _KINDS.get(path.suffix.lower())
    return kind is not None and _header(path).lstrip().startswith(kind[0])


def itk_files(path: Path) -> list[Path]:
    """The file, and that of its voxels beside it; a `ScanError` if voxels are separate, but no such file is named."""
    suffix = path.suffix.lower()
    found = _KINDS[suffix][2].search(_header(path))
    name = os.fsdecode(found[1]) if found else ""
    if name.upper() == "LOCAL" or (not name and suffix == ".nrrd"):
        return [path]
    if not name or os.path.basename(name) != name or name.upper().startswith("LIST"):
        found_name = f"{name} as its data file" if name else "no data file"
        raise ScanError(f"{path} names {found_name}; a single file in the same folder is needed. {_ADVICE}")
    return [path, path.with_name(name)]


def read_itk(path: Path, needed: str) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Read a header, without sform and qform if the file does not define its axes, and its voxels.

    Voxels are float32 (i, j, k), with a single slice for a two-dimensional image; a `ScanError` if the file is damaged,
    coloured or very large.
    """
    itk_files(path)
    with extra("itk"):
        import SimpleITK
    _, reading, _, places = _KINDS[path.suffix.lower()]
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(reading)
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()
        usable = 2 <= len(size) <= 3 and min(size) >= 1 and math.prod(size) <= MAXIMUM_VOXELS
        if not usable or reader.GetNumberOfComponents() != 1:
            raise ScanError(
                f"{path} has the size {size} of {reader.GetNumberOfComponents()} components; {needed} of at most "
                f"{MAXIMUM_VOXELS:,} voxels is needed."
            )
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        said = "".join(str(error).strip().splitlines()[-1:]) or type(error).__name__
        raise ScanError(f"{path} is damaged and cannot be read ({said}). {_ADVICE}") from None
    voxels = SimpleITK.GetArrayFromImage(image).T.astype(np.float32)
    dimensions = image.GetDimension()
    affine = np.eye(4)
    affine[:dimensions, :dimensions] = np.reshape(image.GetDirection(), (dimensions, dimensions)) * image.GetSpacing()
    affine[:dimensions, 3] = image.GetOrigin()
    header = header_with(_LPS @ affine, (*size, 1)[:3])
    if not places.search(_header(path)):
        header["sform_code"] = header["qform_code"] = 0
    return header, voxels.reshape((*size, 1)[:3])


def write_itk(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write voxels (i, j, k) in the format of the file's ending."""
    with extra("itk"):
        import SimpleITK
    image, lps = SimpleITK.GetImageFromArray(voxels.T), _LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=path.suffix.lower() in (".mha", ".nrrd"))


def files_of_mask(path: Path) -> list[Path]:
    """The files of a mask that is written to a path: two in some formats."""
    if _PAIR.fullmatch(path.name):
        return pair_files(path)
    return [path, path.with_suffix(".raw")] if path.suffix.lower() in (".mhd", ".nhdr") else [path]


def _header(path: Path) -> bytes:
    """The text before the voxels; in NRRD files up to an empty line."""
    try:
        with path.open("rb") as file:
            start = file.read(_LONGEST)
    except OSError:
        return b""
    return re.split(rb"\r?\n\r?\n", start)[0] if start.startswith(b"NRRD0") else start
