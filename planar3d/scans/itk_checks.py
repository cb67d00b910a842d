"""What ITK's readers do not check: a header with which they crash or never return, and checksums of packed voxels."""

import io
import re
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from planar3d.errors import ScanError
from planar3d.scans.foreign_images import ADVICE, damaged
from planar3d.scans.nifti import DEFLATE_LIMIT, isal_error, unzipped

_LONGEST_LINE = 500  # of a field of NRRD; Teem writes longer ones beyond the end of its error's text
_PART = 2**22  # bytes that are unpacked at once
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


def check_header(path: Path, text: bytes) -> None:
    """Raise a `ScanError` for a header that ITK must not get; `text` is that of a MetaImage or NRRD file."""
    is_nrrd = text.startswith(b"NRRD0")
    wrong = ""
    if is_nrrd and any(len(line) > _LONGEST_LINE for line in _LINE.findall(text)):
        wrong = f"has a line of more than {_LONGEST_LINE} bytes in its header"
    if not is_nrrd and not all(re.fullmatch(rb"10|[1-9]", found) for found in _DIMENSIONS.findall(text)):
        wrong = "has a number of dimensions that no image has"
    if any(_is_far(number) for line in _PLACES.findall(text) for number in _BETWEEN.split(line)):
        wrong = f"has a place or size beyond {_FARTHEST:g} mm in its header"
    if wrong:
        raise ScanError(f"{path} {wrong}; it is damaged. {ADVICE}")


def _is_far(number: bytes) -> bool:
    try:
        return not abs(float(number)) <= _FARTHEST
    except ValueError:
        return False  # ITK refuses it


def checksum_of_packed(path: Path, text: bytes, file: Path, begin: int, size: int) -> int | None:
    """The CRC-32 of packed voxels of `size` bytes; None if they are not packed, or stand after other bytes.

    They are unpacked to their end, where their own checksum is compared, which ITK does not do.

    Args:
        text: the header in the file at `path`.
        file: has the voxels from the byte `begin` on.
    """
    if not _PACKED.search(text) or _SKIPS.search(text):
        return None
    checksum = found = 0
    try:
        with file.open("rb") as stream:
            stream.seek(begin)
            for part in _unpacked(io.BytesIO(stream.read())):
                checksum, found = zlib.crc32(part, checksum), found + len(part)
                if found > size:
                    break
    except (EOFError, OSError, zlib.error, isal_error) as error:
        raise damaged(path, error) from None
    if found != size:
        raise damaged(path, ValueError(f"its voxels do not have the {size:,} bytes that its header declares"))
    return checksum


def _unpacked(stream: BinaryIO) -> Iterator[bytes]:
    """The parts of a stream of zlib or gzip."""
    unzipping, zipped = unzipped(stream)
    if zipped:
        yield from iter(partial(unzipping.read, _PART), b"")
        return
    unpacking = zlib.decompressobj()
    while part := stream.read(_PART // DEFLATE_LIMIT):
        yield unpacking.decompress(part)
    if not unpacking.eof:
        raise EOFError("its packed voxels break off")


def require_checksum(path: Path, stored: np.ndarray, checksum: int | None) -> None:
    """Raise a `ScanError` if voxels, in either order of bytes, have another CRC-32 than `checksum_of_packed` found."""
    if checksum not in (None, zlib.crc32(stored.tobytes())) and zlib.crc32(stored.byteswap().tobytes()) != checksum:
        raise damaged(path, ValueError("its voxels are not those that its header declares"))
