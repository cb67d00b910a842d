"""What a gzip file holds, unpacked by isal where it is installed and else by zlib; both compare every checksum."""

import zlib
from typing import IO, Any

_AS_GZIP = 31  # zlib's word for the largest window and a gzip header and trailer
MAGIC = b"\x1f\x8b"
_CHUNK = 2**18  # bytes of the file at once; what they unpack to fits into a core's cache


def unpacker() -> Any:
    """The module that unpacks: `isal.isal_zlib`, twice as fast, or `zlib`, whose functions are the same."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib


class GunzipError(Exception):
    """What is wrong with a gzip file, as the end of a sentence."""


class GunzipStream:
    """Reads from a gzip file of one or several members, and no more than it is asked for.

    Args:
        file: open for reading bytes.

    Raises:
        GunzipError: it is no gzip file, ends too early, or its bytes were changed.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._library = file, unpacker()
        self._member: Any = None  # what unpacks the present member; None between two of them
        self._packed = b""

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end, where the checksums of all members have been compared."""
        pieces = []
        while size and (piece := self._unpack(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _unpack(self, most: int) -> bytes:
        """Up to `most` bytes; none at the end of the file."""
        while True:
            packed = self._packed or self._file.read(_CHUNK)
            if self._member is None:
                if not packed:
                    return b""
                self._packed = packed.lstrip(b"\0")  # some writers pad the file with zeros
                if not MAGIC.startswith(self._packed[:2]):
                    raise GunzipError("it holds something else")
                if self._packed:
                    self._member = self._library.decompressobj(wbits=_AS_GZIP)
                continue
            try:
                piece = self._member.decompress(packed, most)
            except (zlib.error, self._library.error):
                raise GunzipError("its bytes do not unpack to the CRC they came with") from None
            ended = self._member.eof
            self._packed = self._member.unused_data if ended else self._member.unconsumed_tail
            if ended:
                self._member = None
            elif not packed and not piece:
                raise GunzipError("it ends too early")
            if piece:
                return piece
