"""The digest by which a record knows the scan that its mask was made from."""

from pathlib import Path

import pytest

from planar3d.scans.inputs import ScanInput
from planar3d.study.records import scan_sha256
from planar3d.transfer.digests import file_sha256


@pytest.fixture
def files(tmp_path):
    """Two files, as those of a case."""
    paths = [tmp_path / name for name in ("a.nii", "b.nii")]
    for path in paths:
        path.write_text(path.name)
    return paths


def test_the_files_of_a_scan_have_another_digest_as_other_images_or_volumes(files):
    one, other = files
    volumes = [Path(f"{one}[{number}]") for number in (0, 1)]
    cases = [{"t1": one, "t1ce": other}, {"t1": other, "t1ce": one}, dict(zip(("t1", "t1ce"), volumes, strict=True))]
    scans = [ScanInput("case", one, images=images) for images in cases]
    scans += [ScanInput("scan", path) for path in (one, other, *volumes)]
    assert len({scan_sha256(scan) for scan in scans}) == len(scans)


def test_a_scan_of_one_file_has_the_digest_of_the_file(files):
    one, _ = files
    for scan in (ScanInput("scan", one), ScanInput("case", one, images={"t1": one})):
        assert scan_sha256(scan) == file_sha256(one)
