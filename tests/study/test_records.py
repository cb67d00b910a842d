"""Records know their scans by a digest, and those that were edited are told from those that were written."""

from hashlib import sha256
from pathlib import Path

import pytest
from scan_pages import record_of, segmented

from planar3d.files import write_json
from planar3d.scans.inputs import ScanInput
from planar3d.study.cohort_folder import CohortFolder
from planar3d.study.records import records_within, scan_sha256
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


def test_a_file_of_another_program_that_has_the_words_of_a_record_is_none(tmp_path):
    write_json(tmp_path / "a.json", {"scan": "T1", "model": "Prisma", "result": 1, "files": []})
    assert not list(records_within(tmp_path))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda record: record["scan"].pop("name"), "scan.name is missing"),
        (lambda record: record["result"].update(volume_ml="1,5"), "result.volume_ml is '1,5'"),
        (lambda record: record["result"].update(largest_ml=float("nan")), "result.largest_ml is 'nan'"),
        (lambda record: record["lesions"][1].update(extent_mm=[1.0, 2.0]), "lesions.1.extent_mm is '[1.0, 2.0]'"),
        (lambda record: record["files"].update(overlay=None), "files.overlay is 'None'"),
        (lambda record: record.update(warnings=["far apart"]), "warnings.0 is 'far apart'"),
        (lambda record: record.update(date=2026), "date is '2026'"),
    ],
)
def test_a_record_that_was_edited_into_another_form_is_damaged(tmp_path, change, why):
    mask, damaged = segmented()[1], {}
    for name in "ab":
        write_json(tmp_path / f"{name}.json", record_of(mask, name))
    change(content := record_of(mask))
    write_json(tmp_path / "a.json", content)
    assert [file.name for file, _ in records_within(tmp_path, damaged)] == ["b.json"]
    assert damaged[str(tmp_path / "a.json")].startswith(
        f"{tmp_path / 'a.json'} is not in the form that planar3d writes ({why}). If it is the record of a mask, delete "
    )


def test_a_folder_with_the_name_of_a_record_is_none(tmp_path):
    (tmp_path / "a.json").mkdir()
    assert not list(records_within(tmp_path))


def test_a_closed_folder_of_masks_counts_as_failed(tmp_path, close_folder):
    """Its masks had been left out of tables and means without a word."""
    mask = segmented()[1]
    for place in ("sub-1", "sub-2", "lost+found"):
        write_json(tmp_path / place / "a.json", record_of(mask, place))
        (tmp_path / place / "a_mask.nii.gz").touch()
    close_folder(tmp_path / "sub-1")
    failed = CohortFolder(tmp_path).read()[0].failed
    assert list(failed) == [str(tmp_path / "sub-1")] and "cannot be opened" in failed[str(tmp_path / "sub-1")]


@pytest.mark.parametrize(
    "requested", [True, "a", [None], [{}], [{"path": [], "problem": "", "record": "", "mask": ""}], "["]
)
@pytest.mark.parametrize("failed", [[], {"path": "/a.nii"}, {"why": 1}])
def test_a_damaged_note_of_an_output_folder_counts_as_none(tmp_path, requested, failed):
    write_json(tmp_path / ".planar3d" / "request-0.json", requested)
    scan = {"path": "/a.nii", "problem": "", "record": "a.json", "mask": "a_mask.nii.gz"}
    write_json(tmp_path / ".planar3d" / "request-1.json", [scan])
    write_json(tmp_path / ".planar3d" / f"failed-{sha256(b'a.json').hexdigest()[:24]}.json", failed)
    standing = CohortFolder(tmp_path).opened().standing()
    assert [*standing.missing] == ["/a.nii"] and not standing.failed
