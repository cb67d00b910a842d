"""MetaImage and NRRD files, which SimpleITK reads and writes, with their voxels in the same file or beside it.

ITK does not check everything: with some headers it crashes or never returns, and it ignores the checksum of packed
voxels.
"""

import io
import math
import os
import re
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from planar3d.errors import ScanError, text_of, untrusted
from planar3d.extras import extra
from planar3d.scans.foreign_images import ADVICE
from planar3d.scans.nifti import DEFLATE_LIMIT, start_of, unzipped
from planar3d.scans.nifti_header import MAXIMUM_VOXELS, header_with

_LONGEST = 2**16  # bytes of a header
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
_META_END = re.compile(rb"ElementDataFile[^\n]*\n?|\Z")  # of its first mention, also where only ITK reads it
_NRRD_END = re.compile(rb"\n\r?\n|\r\r|\Z")
_LONGEST_LINE = 500  # of a field of NRRD; Teem writes longer ones beyond the end of its error's text
_FARTHEST = 1e9  # mm; with far larger numbers, ITK's decomposition of a matrix never ends
_LINE = re.compile(rb"^(?!#|content:|[^:\n]+:=).*$", re.M | re.I)  # those that may be long are left out
_DIMENSIONS = re.compile(rb"^\s*NDims\s*[=:]\s*(.*?)\s*$", re.M)
_PLACES = re.compile(
    rb"^\s*(?:TransformMatrix|Orientation|Rotation|Offset|Origin|Position|CenterOfRotation|Element(?:Spacing|Size)"
    rb"|space (?:directions|origin)|spacings)\s*[=:](.*)$",
    re.M | re.I,
)
_BETWEEN = re.compile(rb"[\s(),]+")
_PACKED = re.compile(rb"^\s*(?:CompressedData\s*[=:]\s*[tT1]|encoding\s*:\s*gz)", re.M | re.I)
_SKIPS = re.compile(rb"^\s*(?:HeaderSize|line skip|byte skip)\s*[=:]\s*(?!0\s*$)", re.M | re.I)


def is_itk_image(path: Path) -> bool:
    """Whether a file is a MetaImage or NRRD file or header, by its name and content."""
    kind = _KINDS.get(path.suffix.lower())
    return kind is not None and _header(path)[0].lstrip().startswith(kind[0])


def itk_files(path: Path) -> list[Path]:
    """The file, and that of its voxels beside it; a `ScanError` if voxels are separate, but no such file is named."""
    suffix = path.suffix.lower()
    found = _KINDS[suffix][2].search(_header(path)[0])
    name = os.fsdecode(found[1]) if found else ""
    if name.upper() == "LOCAL" or (not name and suffix == ".nrrd"):
        return [path]
    # ITK takes % for a pattern of many files' names.
    if not name or os.path.basename(name) != name or name.upper().startswith("LIST") or "%" in name:
        found_name = f"{name} as its data file" if name else "no data file"
        raise ScanError(f"{path} names {found_name}; a single file in the same folder is needed. {ADVICE}")
    return [path, path.with_name(name)]


def read_itk(path: Path, needed: str) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Read a header, without sform and qform if the file does not define its axes, and its voxels.

    Voxels are float32 (i, j, k), with a single slice for a two-dimensional image; a `ScanError` if the file is damaged,
    coloured or very large.
    """
    file = itk_files(path)[-1]
    about, end = _header(path)
    with extra("itk"):
        import SimpleITK
    _, reading, _, places = _KINDS[path.suffix.lower()]
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(text_of(path, "ITK", ScanError))
    reader.SetImageIO(reading)
    with untrusted(path, ADVICE):
        _check_header(about)
        reader.ReadImageInformation()
        size = reader.GetSize()
        usable = 2 <= len(size) <= 3 and min(size) >= 1 and math.prod(size) <= MAXIMUM_VOXELS
        if not usable or reader.GetNumberOfComponents() != 1:
            raise ScanError(
                f"{path} has the size {size} of {reader.GetNumberOfComponents()} components; {needed} of at most "
                f"{MAXIMUM_VOXELS:,} voxels is needed."
            )
        each = SimpleITK.Image([1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()
        checksum = _checksum_of_packed(about, file, end if file == path else 0, math.prod(size) * each)
        image = reader.Execute()
        stored = SimpleITK.GetArrayFromImage(image)
        swapped = checksum not in (None, zlib.crc32(stored.tobytes()))  # ITK turns the order of bytes into its own
        if swapped and zlib.crc32(stored.byteswap().tobytes()) != checksum:
            raise ValueError("its voxels are not those that its header declares")
    dimensions = image.GetDimension()
    affine = np.eye(4)
    affine[:dimensions, :dimensions] = np.reshape(image.GetDirection(), (dimensions, dimensions)) * image.GetSpacing()
    affine[:dimensions, 3] = image.GetOrigin()
    header = header_with(_LPS @ affine, (*size, 1)[:3], bool(places.search(about)))
    return header, stored.T.astype(np.float32).reshape((*size, 1)[:3])


def write_itk(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write voxels (i, j, k) in the format of the file's ending."""
    with extra("itk"):
        import SimpleITK
    image, lps = SimpleITK.GetImageFromArray(voxels.T), _LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    name = text_of(path, "ITK", ScanError)
    SimpleITK.WriteImage(image, name, useCompression=path.suffix.lower() in (".mha", ".nrrd"))


def _header(path: Path) -> tuple[bytes, int]:
    """The text before the voxels, with a newline after each line, and the length of all before them."""
    start = start_of(path, _LONGEST)
    is_nrrd = start.startswith(b"NRRD0")
    found = (_NRRD_END if is_nrrd else _META_END).search(start)
    assert found is not None
    # Teem takes a carriage return alone for the end of a line.
    text = re.sub(rb"\r\n?", b"\n", start[: found.start()]) if is_nrrd else start[: found.end()]
    return text, found.end()


def _check_header(text: bytes) -> None:
    """Raise a `ValueError` for a header that ITK must not get; `text` is that of a MetaImage or NRRD file."""
    is_nrrd = text.startswith(b"NRRD0")
    if is_nrrd and any(len(line) > _LONGEST_LINE for line in _LINE.findall(text)):
        raise ValueError(f"it has a line of more than {_LONGEST_LINE} bytes in its header")
    if not is_nrrd and not all(re.fullmatch(rb"10|[1-9]", found) for found in _DIMENSIONS.findall(text)):
        raise ValueError("it has a number of dimensions that no image has")
    if any(_is_far(number) for line in _PLACES.findall(text) for number in _BETWEEN.split(line)):
        raise ValueError(f"it has a position or size beyond {_FARTHEST:g} mm in its header")


def _is_far(number: bytes) -> bool:
    try:
        return not abs(float(number)) <= _FARTHEST
    except ValueError:
        return False  # ITK refuses it


def _checksum_of_packed(text: bytes, file: Path, begin: int, size: int) -> int | None:
    """The CRC-32 of voxels of `size` bytes, packed in a file from `begin` on; None if the header says otherwise.

    They are unpacked to their end, where their own checksum is compared, which ITK does not do.
    """
    if not _PACKED.search(text) or _SKIPS.search(text):
        return None
    with file.open("rb") as stream:
        stream.seek(begin)
        packed = stream.read()
    unzipping, zipped = unzipped(io.BytesIO(packed))
    if zipped:
        content = unzipping.read(min(size + 1, len(packed) * DEFLATE_LIMIT))  # Python allocates all requested bytes
    else:
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(packed, size + 1)
        if len(content) <= size and not unpacking.eof:
            raise EOFError("its compressed voxels are truncated")
    if len(content) != size:
        raise ValueError(f"its voxels do not have the {size:,} bytes that its header declares")
    return zlib.crc32(content)
