"""Whatever unpacks it, a gzipped scan gives the bytes that were packed, or a sentence."""

import gzip

import numpy as np
import pytest

from planar3d.errors import ScanError
from planar3d.scans import nifti
from planar3d.scans.nifti import read_whole
from planar3d.scans.volume import read_scan


@pytest.fixture(params=["isal", "gzip"])
def library(request, monkeypatch):
    """Unpack with isal, or as where it is not installed."""
    if request.param == "isal":
        pytest.importorskip("isal")
    monkeypatch.setattr(nifti, "GzipFile", gzip.GzipFile if request.param == "gzip" else nifti.GzipFile)
    assert (nifti.GzipFile is gzip.GzipFile) == (request.param == "gzip")


@pytest.fixture
def scan(tmp_path, write_nifti):
    """The bytes of a scan, and its bytes by way of a gzip file of the content given."""
    voxels = np.random.default_rng(0).gamma(2, 40, (6, 7, 8)).astype(np.float32)
    content = write_nifti(voxels).read_bytes()
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content

    def read(packed):
        (tmp_path / "packed.nii.gz").write_bytes(packed)
        return read_whole(tmp_path / "packed.nii.gz")[1]

    return content, read


def test_members_follow_each_other_and_padding_is_passed_over(library, scan):
    content, read = scan
    packed = gzip.compress(content)
    halves = gzip.compress(content[:400]) + bytes(3) + gzip.compress(content[400:]) + bytes(2**16)
    assert read(packed) == read(halves) == content
    assert read(packed + gzip.compress(b"behind")) == content + b"behind"


def test_no_end_is_taken_for_the_end_of_the_file(library, scan):
    content, read = scan
    packed = gzip.compress(content)
    for end in range(2, len(packed), 7):
        with pytest.raises(ScanError, match=r"is a damaged gzip file .*ended before"):
            read(packed[:end])


def test_a_changed_byte_is_an_error_or_changes_nothing(library, scan):
    content, read = scan
    packed = gzip.compress(content, mtime=0)
    unnoticed = 0
    for place in (*range(20), *range(20, len(packed), 5)):
        changed = bytearray(packed)
        changed[place] ^= 0x10
        try:
            assert read(bytes(changed)) == content, place
            unnoticed += 1
        except ScanError:
            pass
    # Time, system and compression level in the gzip header mean nothing to its content.
    assert unnoticed <= 10


def test_a_bad_scan_is_refused_with_a_sentence(library, gradient_scan):
    path, voxels = gradient_scan
    np.testing.assert_array_equal(read_scan(path).voxels, voxels)
    good = path.read_bytes()
    for content, sentence in {
        good[:-40]: "is a damaged gzip file .*ended before",
        good[:-8] + bytes(8): "is a damaged gzip file .CRC check failed",
        good + b"behind": "is a damaged gzip file",
        b"": "is not a NIfTI file: it is empty",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ScanError, match=sentence):
            read_scan(path)
