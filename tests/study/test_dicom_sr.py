"""A structured report says the count and volumes of the lesion table, and refers to the segments of its lesions."""

import csv
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="needs the extra dicom")
pytest.importorskip("dcm2niix", reason="needs the extra dicom")
pytest.importorskip("highdicom", reason="needs the extra dicom")

import highdicom.sr
from dicom_series import LESIONS, OBLIQUE, SERIES, VOXELS, segmented, write_kind, write_series
from msseg import write_model
from pydicom import dcmread
from pydicom.sr.codedict import codes
from scipy import ndimage
from typer.testing import CliRunner

from planar3d.cli import app
from planar3d.evaluation.lesion_table import lesion_table
from planar3d.study.cohort import segment_all
from planar3d.study.dicom_seg import write_dicom_seg
from planar3d.study.dicom_sr import write_dicom_sr
from planar3d.study.segmented import Request

MODEL = {"name": "ms-flair", "sha256": "30de1" * 8}
MANY = np.zeros_like(LESIONS)
MANY[::3, ::3, ::3] = 1
MASKS = {**dict.fromkeys(SERIES, LESIONS), "none": np.zeros_like(LESIONS)}


def _written(folder, kind="oblique", lesions=LESIONS, regions=()):
    """The lesions of a mask, and its segmentation and report."""
    affine = write_kind(folder / "in", kind)
    mask, series = segmented(folder / "in", lesions, affine)
    table = lesion_table(mask)
    pairs = zip(table, regions or [(None, None)] * len(table), strict=True)
    table = [lesion._replace(region=name, region_sure=sure) for lesion, (name, sure) in pairs]
    seg = write_dicom_seg(mask, series, MODEL, folder / "seg.dcm")
    return table, seg, write_dicom_sr(table, seg, folder / "sr.dcm")


def _groups(report):
    """The group of all lesions, and those of each, as highdicom reads them."""
    content = highdicom.sr.srread(report).content
    (whole,) = content.get_image_measurement_groups()
    return whole, content.get_volumetric_roi_measurement_groups()


def _numbers(group):
    return {item.name.meaning: (item.value, item.unit.value) for item in group.get_measurements()}


@pytest.mark.parametrize("kind", [*MASKS])
def test_counts_and_volumes_are_the_tables_and_tracking_is_the_segments(kind, tmp_path):
    table, seg, report = _written(tmp_path, kind if kind in SERIES else "oblique", MASKS[kind])
    whole, each = _groups(report)
    assert len(table) == len(each) == (3 if MASKS[kind].any() else 0)
    total = round(sum(lesion.volume_ml for lesion in table) * 1000, 3)
    assert _numbers(whole) == {"Number of lesions": (len(table), "{lesions}"), "Volume": (total, "mm3")}
    assert b"DS\x02\x00%d " % len(table) in report.read_bytes()  # not 3.0
    segments = dcmread(seg).SegmentSequence
    for lesion, group, segment in zip(table, each, segments, strict=bool(table)):
        assert _numbers(group) == {"Volume": (round(lesion.volume_ml * 1000, 3), "mm3")}
        assert (group.tracking_uid, group.tracking_identifier) == (segment.TrackingUID, segment.TrackingID)
        assert group.referenced_segment.referenced_segment_numbers == [segment.SegmentNumber]
        assert group.referenced_segment.referenced_sop_instance_uid == dcmread(seg).SOPInstanceUID


def test_the_report_is_of_the_study_and_names_its_evidence_and_its_author(tmp_path):
    table, seg, path = _written(tmp_path)
    report, images = dcmread(path), [dcmread(image) for image in (tmp_path / "in").iterdir()]
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34" and report.SeriesNumber == 2005
    assert (report.PatientName, report.StudyInstanceUID) == (images[0].PatientName, images[0].StudyInstanceUID)
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    evidence = {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert evidence == {dcmread(seg).SOPInstanceUID, *(image.SOPInstanceUID for image in images)}
    assert all(word in report.to_json() for word in ('["planar3d"]', f"model=ms-flair,sha256={MODEL['sha256']}"))
    again = dcmread(write_dicom_sr(table, seg, tmp_path / "again.dcm"))
    assert (report.SOPInstanceUID, report.SeriesInstanceUID) == (again.SOPInstanceUID, again.SeriesInstanceUID)


def test_only_a_sure_region_with_a_code_of_its_own_is_a_finding_site(tmp_path):
    regions = [("infratentorial", True), ("infratentorial", False), ("deep", True)]
    _, _, report = _written(tmp_path, regions=regions)
    sites = [[site.value.value for site in group.finding_sites] for group in _groups(report)[1]]
    assert sites == [["21031007"], [codes.SCT.Brain.value], [codes.SCT.Brain.value]]


@pytest.fixture(scope="module", params=[LESIONS, MASKS["none"], MANY], ids=["three", "none", "many"])
def read_by_others(request, tmp_path_factory):
    return _written(tmp_path_factory.mktemp("report"), lesions=request.param)


@pytest.mark.parametrize("program", [["dciodvfy", "-new"], ["dsrdump", "-Er", "-Ec"]], ids=lambda words: words[0])
def test_other_readers_find_nothing_wrong(program, read_by_others):
    if not shutil.which(program[0]):
        pytest.skip(f"{program[0]} is not installed")
    table, _, report = read_by_others
    done = subprocess.run([*program, report], capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "Error" not in said and "E: " not in said, said
    if program[0] == "dsrdump":
        assert said.count('"Referenced Segment"') == len(table)


def test_predict_writes_the_report_with_the_segmentation_and_again_if_it_is_gone(tmp_path):
    # Smooth, since of noise each voxel is a lesion.
    write_series(tmp_path / "in", ndimage.gaussian_filter(VOXELS, 2), OBLIQUE)
    model, out = write_model(tmp_path), tmp_path / "out"
    request = Request(engine="keras", dicom_sr=True)
    for _ in "12":
        (record,) = segment_all([tmp_path / "in"], model, out, request=request, notify=str).records
        report, table = out / record["files"]["dicom_sr"], out / record["files"]["lesions"]
        whole, each = _groups(report)
        with table.open() as file:
            volumes = [float(row["volume_ml"]) for row in csv.DictReader(file)]
        assert [_numbers(group)["Volume"][0] / 1000 for group in each] == pytest.approx(volumes, abs=1e-9)
        assert _numbers(whole)["Number of lesions"][0] == record["result"]["lesions"] == len(each) > 1
        assert (out / record["files"]["dicom_seg"]).is_file() and len(list(out.glob("*.dcm"))) == 2
        report.unlink()
    words = [out / record["files"]["mask"], "--model", model, "--out", tmp_path / "other", "--dicom-sr"]
    done = CliRunner().invoke(app, ["predict", *map(str, words)])
    assert done.exit_code != 0 and "is not a DICOM series" in str(done.output) + str(done.exception)
