"""Whatever unpacks it, a gzip file gives the bytes that were packed, or an error."""

import gzip
import io
import sys
import zlib

import numpy as np
import pytest

from planar3d.errors import ScanError
from planar3d.scans.gunzip import GunzipError, GunzipStream, unpacker
from planar3d.scans.volume import read_scan

CONTENT = np.random.default_rng(0).integers(0, 50, 3000, np.uint8).tobytes() + bytes(2000)


@pytest.fixture(params=["isal", "zlib"])
def library(request, monkeypatch):
    """Unpack with isal, or as where it is not installed."""
    if request.param == "isal":
        pytest.importorskip("isal")
    else:
        monkeypatch.setitem(sys.modules, "isal", None)
    assert (unpacker() is zlib) == (request.param == "zlib")


def _read(packed, size=10**6):
    stream = GunzipStream(io.BytesIO(packed))
    pieces = []
    while piece := stream.read(size):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("size", [1, 540, 4999, 5000, 5001, 10**6])
def test_what_was_packed_comes_out_in_pieces_of_any_size(library, size):
    assert _read(gzip.compress(CONTENT), size) == CONTENT


def test_more_than_a_chunk_of_the_file_is_read_on(library):
    content = np.random.default_rng(0).integers(0, 256, 2**20, np.uint8).tobytes()
    assert _read(gzip.compress(content, 1)) == content


def test_members_follow_each_other_and_padding_is_passed_over(library):
    packed = gzip.compress(CONTENT)
    assert _read(packed + packed) == CONTENT + CONTENT
    assert _read(packed + bytes(3) + packed + bytes(2**19)) == CONTENT + CONTENT
    assert _read(b"") == b""
    with pytest.raises(GunzipError, match="something else"):
        _read(packed + b"behind")


def test_no_end_is_taken_for_the_end_of_the_file(library):
    packed = gzip.compress(CONTENT)
    for end in range(1, len(packed)):
        with pytest.raises(GunzipError, match="too early"):
            _read(packed[:end])


def test_a_changed_byte_is_an_error_or_changes_nothing(library):
    packed = gzip.compress(CONTENT, mtime=0)
    refused = 0
    for place in range(len(packed)):
        changed = bytearray(packed)
        changed[place] ^= 0x10
        try:
            assert _read(bytes(changed)) == CONTENT, place
        except GunzipError:
            refused += 1
    # Time, system and compression level in the gzip header mean nothing to its content.
    assert refused >= len(packed) - 10


def test_a_bad_scan_is_refused_with_the_same_sentences(library, gradient_scan):
    path, voxels = gradient_scan
    np.testing.assert_array_equal(read_scan(path).voxels, voxels)
    good = path.read_bytes()
    for content, sentence in {
        good[:-40]: "is a damaged gzip file .it ends too early.",
        good[:-8] + bytes(8): "is a damaged gzip file .its bytes do not unpack to the CRC",
        good + b"behind": "is a damaged gzip file .it holds something else.",
        b"": "is not a NIfTI file: it is empty",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ScanError, match=sentence):
            read_scan(path)
