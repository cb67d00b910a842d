"""A folder's tables say what its records say."""

import csv
import os

import pytest
from scan_pages import record_of, segmented

from planar3d.errors import RunError
from planar3d.files import read_json, write_json
from planar3d.study.cohort_folder import CohortFolder
from planar3d.study.cohort_report import write_cohort_report, write_cohort_tables
from planar3d.transfer.digests import file_sha256


def _rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def folder(tmp_path):
    """A folder with the records of two scans, the second in a subfolder and of two targets."""
    mask = segmented()[1]
    first = record_of(mask, "a")
    for lesion, region in zip(first["lesions"], ("periventricular", "deep"), strict=True):
        lesion["region"] = region
    (tmp_path / "a_mask.nii.gz").touch()
    first["result"]["mask_sha256"] = file_sha256(tmp_path / "a_mask.nii.gz")
    write_json(tmp_path / "a.json", first)
    second = record_of(mask, "b")
    second["result"]["targets_ml"] = {"WT": 4.5, "ET": 0.5}
    second["lesions"] = [{"target": target, **lesion} for target in ("WT", "ET") for lesion in second["lesions"]]
    write_json(tmp_path / "sub-1/b.json", second)
    return CohortFolder(tmp_path)


def test_each_scan_has_a_line_with_what_was_found_and_by_what(folder):
    write_cohort_tables(folder.path, folder.read()[1], {"/data/c.nii": "c is 4-D."})
    a, b, c = _rows(folder.path / "scans.csv")
    assert (a["scan"], a["state"], a["lesions"], a["warnings"]) == ("a", "done", "2", "Slices lie far apart.")
    assert (a["WT_ml"], b["WT_ml"], b["ET_ml"], b["mask"]) == ("", "4.5", "0.5", "sub-1/b_mask.nii.gz")
    assert float(a["periventricular_ml"]) + float(a["deep_ml"]) == pytest.approx(float(a["volume_ml"]))
    # A region without lesions has none, but nothing is known of the regions of a model that names no regions.
    assert [row["juxtacortical_ml"] for row in (a, b, c)] == ["0.0", "", ""]
    assert (a["model_sha256"], a["versions"]) == ("30de1", "planar3d 0.1.0, keras 3.15.1")
    assert b["state"] == "no mask"  # a process was killed before it wrote that, or somebody removed it
    assert (c["scan"], c["state"], c["failure"], c["lesions"]) == ("c.nii", "failed", "c is 4-D.", "")


@pytest.mark.parametrize(
    ("regions", "volumes"),
    [
        ((), {"periventricular_ml": 0, "deep_ml": 0, "infratentorial_ml": 0, "unknown_ml": ""}),
        (("unknown", "juxtacortical"), {"periventricular_ml": "", "deep_ml": "", "infratentorial_ml": ""}),
        ((None, None), {"periventricular_ml": "", "deep_ml": "", "juxtacortical_ml": "", "unknown_ml": ""}),
    ],
)
def test_a_volume_is_zero_where_a_scan_has_no_lesion_in_a_region_and_empty_where_regions_are_unknown(
    folder, regions, volumes
):
    record = record_of(segmented()[1], "d")
    pairs = zip(record["lesions"], regions, strict=False)
    record["lesions"] = [lesion | {"region": region} for lesion, region in pairs]
    write_json(folder.path / "d.json", record)
    row = {row["scan"]: row for row in write_cohort_tables(folder.path, folder.read()[1], {})}["d"]
    assert {name: row.get(name, "") for name in volumes} == volumes


def test_a_target_with_the_name_of_another_column_has_its_own(folder):
    record = read_json(folder.path / "sub-1/b.json")
    record["result"]["targets_ml"] = {"volume": 4.5, "largest": 0.5, "deep": 0.25}
    write_json(folder.path / "sub-1/b.json", record)
    write_cohort_tables(folder.path, folder.read()[1], {})
    a, b = _rows(folder.path / "scans.csv")
    assert [float(b[name]) for name in ("volume_ml", "largest_ml")] == [
        record["result"][n] for n in ("volume_ml", "largest_ml")
    ]
    assert [b[f"target_{name}_ml"] for name in ("volume", "largest", "deep")] == ["4.5", "0.5", "0.25"]
    assert b["deep_ml"] == "" != a["deep_ml"]
    page = write_cohort_report(folder.path, folder.read()[1], {}).read_text()
    assert "scans by target_volume volume in ml" in page


def test_a_mask_that_was_changed_after_its_record_is_told_in_table_and_report(folder):
    record, mask = folder.path / "a.json", folder.path / "a_mask.nii.gz"
    mask.write_text("corrected by hand")
    os.utime(mask, (2e9, 2e9))
    sentence = (
        "a_mask.nii.gz is not the mask that its record describes: it was changed, or predict was killed before it "
        "replaced it."
    )
    a = write_cohort_tables(folder.path, folder.read()[1], {})[0]
    assert a["state"] == "mask changed" and a["warnings"] == f"{sentence} Slices lie far apart."
    assert sentence in write_cohort_report(folder.path, folder.read()[1], {}).read_text()
    content = read_json(record)
    content["result"]["mask_sha256"] = file_sha256(mask)  # as of a folder that was copied, with new times
    write_json(record, content)
    os.utime(record, (0, 0))
    assert write_cohort_tables(folder.path, folder.read()[1], {})[0]["state"] == "done"


def test_a_changed_mask_is_told_also_in_a_copy_of_its_folder_where_files_have_new_times(folder):
    record, mask = folder.path / "a.json", folder.path / "a_mask.nii.gz"
    mask.write_text("corrected by hand")
    for path in (mask, record):  # copied in the same moment
        os.utime(path, (2e9, 2e9))
    assert write_cohort_tables(folder.path, folder.read()[1], {})[0]["state"] == "mask changed"
    write_json(record, read_json(record) | {"mask_written_ns": mask.stat().st_mtime_ns})
    assert write_cohort_tables(folder.path, folder.read()[1], {})[0]["state"] == "done"  # as predict left it, unread


def test_tables_that_a_spreadsheet_program_saved_are_made_again_and_foreign_ones_refused(folder):
    write_cohort_tables(folder.path, folder.read()[1], {})
    table = folder.path / "scans.csv"
    before = table.read_text()
    table.write_text("\ufeff" + before.replace(",", ";"), encoding="utf-8")
    write_cohort_tables(folder.path, folder.read()[1], {})
    assert table.read_text() == before
    table.write_text("scan,mask\na.nii,b.nii\n")
    with pytest.raises(RunError, match=r"scans\.csv has the name of a table .*but is another file\. Rename"):
        write_cohort_tables(folder.path, folder.read()[1], {})


@pytest.mark.parametrize("path", ["/data/a.nii.gz", "/data/masks/../a.nii.gz"])
def test_a_scan_whose_mask_another_model_made_has_one_line(folder, path):
    record = read_json(folder.path / "a.json")
    record["scan"]["path"] = path
    write_json(folder.path / "a.json", record)
    write_cohort_tables(folder.path, folder.read()[1], {"/data/a.nii.gz": "a_mask.nii.gz is of another model."})
    a, _ = _rows(folder.path / "scans.csv")
    assert (a["state"], a["failure"]) == ("done", "a_mask.nii.gz is of another model.")


@pytest.mark.parametrize(
    ("scan", "lines"),
    [
        ({}, ["b", "p_a"]),
        ({"path": "/data/copy/a.nii.gz"}, ["a", "b", "p_a"]),
        ({"sha256": "5cb"}, ["a", "b", "p_a"]),
    ],
)
def test_a_scan_segmented_alone_and_then_in_a_group_counts_once_with_its_newest_record(folder, scan, lines):
    record = read_json(folder.path / "a.json") | {"date": "2026-11-27T12:00:01+00:00"}
    record["scan"] |= {"name": "p_a", **scan}
    write_json(folder.path / "p_a.json", record)
    write_cohort_tables(folder.path, folder.read()[1], {})
    assert sorted(row["scan"] for row in _rows(folder.path / "scans.csv")) == lines
    standing = folder.standing()
    assert len([*standing.done, *standing.missing]) == len(lines)
    write_json(folder.path / "p_a.json", record | {"date": "2026-11-27T11:00:00+00:00"})
    if not scan:
        assert [record["scan"]["name"] for _, record in folder.read()[1]] == ["a", "b"]


def test_each_lesion_has_a_line_and_they_add_up_to_their_scans(folder):
    write_cohort_tables(folder.path, folder.read()[1], {})
    rows, scans = _rows(folder.path / "lesions.csv"), _rows(folder.path / "scans.csv")
    assert [(row["scan"], row["target"], row["lesion"]) for row in rows] == [
        *(("a", "", number) for number in "12"),
        *(("b", target, number) for target in ("WT", "ET") for number in "12"),
    ]
    of_a = sum(float(row["volume_ml"]) for row in rows if row["scan"] == "a")
    assert of_a == pytest.approx(float(scans[0]["volume_ml"]), abs=1e-5)


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(RunError, match="not an output folder of planar3d predict"):
        CohortFolder(tmp_path).opened()
