"""Records know their scans by a digest, and what lies beside a mask is removed with it."""

from pathlib import Path

import pytest

from planar3d.files import write_json
from planar3d.scans.bids import derivative_names, sidecar, write_instance_sidecars
from planar3d.scans.inputs import ScanInput
from planar3d.scans.outputs import plain_names
from planar3d.study.records import records_within, remove_outdated, scan_sha256
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


def test_the_sidecars_of_outputs_of_a_replaced_mask_are_removed_with_them(tmp_path):
    scan = tmp_path / "sub-1/anat/sub-1_FLAIR.nii.gz"
    outputs = derivative_names(tmp_path, scan, tmp_path / "out")
    record = {**sidecar(tmp_path, scan, ""), "result": {"mask_sha256": "1"}, "model": {}, "files": {"record": ""}}
    write_json(outputs.record, record | {"files": {"record": "", "instances": "", "probability": ""}})
    write_instance_sidecars(tmp_path, scan, outputs, [])
    notes = outputs.record.with_name("notes.json")
    notes.touch()
    remove_outdated(outputs, record | {"result": {"mask_sha256": "2"}})
    assert set(outputs.record.parent.iterdir()) == {outputs.record, notes}


def test_the_record_of_a_scan_with_the_name_of_an_output_is_kept(tmp_path):
    outputs, record = plain_names("a", tmp_path), {"result": {"mask_sha256": "1"}, "model": {}, "files": {"record": ""}}
    write_json(outputs.record, record | {"files": {"probability": ""}})
    other = plain_names("a_probability", tmp_path).record
    other.touch()
    remove_outdated(outputs, record | {"result": {"mask_sha256": "2"}})
    assert other.exists()


def test_a_file_of_another_program_that_has_the_words_of_a_record_is_none(tmp_path):
    write_json(tmp_path / "a.json", {"scan": "T1", "model": "Prisma", "result": 1, "files": []})
    assert not list(records_within(tmp_path))
