"""Many scans get names of their own, are reported in their order, and give the masks that each gives alone."""

import csv
import errno
import importlib.util
import io
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from msseg import RECIPE, write_model, write_msseg

from planar3d.errors import Planar3DError, RecipeError, RunError, ScanError, WeightsError
from planar3d.files import read_json, write_json
from planar3d.inference import segmenter
from planar3d.inference.segmenter import segment
from planar3d.networks.weights_file import Model, load_network
from planar3d.recipes import Recipe
from planar3d.scans import nifti
from planar3d.scans.outputs import plain_names
from planar3d.scans.volume import read_mask, read_scan
from planar3d.study import cohort_task, earlier, records, segmented as segmented_module
from planar3d.study.cohort import _segmenter_there, segment_all
from planar3d.study.cohort_folder import CohortFolder, takes_part
from planar3d.study.cohort_report import write_cohort_report
from planar3d.study.record_form import read_record
from planar3d.study.segmented import Request
from planar3d.transfer.digests import file_sha256, files_sha256

pytestmark = pytest.mark.usefixtures("built_once")
PLAIN = Request(engine="keras")
ALL = replace(PLAIN, probability=True, overlay=True, report=True)
_SHOWING = ("probability.nii.gz", "overlay.png", "report.html")  # of these, what shows a mask


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return sorted(write_msseg(tmp_path_factory.mktemp("msseg")).rglob("3DFLAIR.nii.gz"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def segmented(scans, model, tmp_path_factory):
    """A folder in which three scans are segmented, with all that can be asked for."""
    out = tmp_path_factory.mktemp("masks")
    return out, segment_all(scans[:3], model, out, request=ALL, notify=str)


def test_by_default_lines_are_printed_also_where_signs_are_lacking(scans, model, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "cp1252"))  # as in a file on Windows
    assert len(segment_all(scans[:1], model, tmp_path, PLAIN).records) == 1


def test_masks_equal_those_of_each_scan_alone_and_lines_follow_the_input(scans, model, tmp_path):
    bad = tmp_path / "bad_FLAIR.nii.gz"
    bad.write_bytes(b"no scan")
    inputs, lines = [scans[3], bad, *scans[:2], tmp_path / "absent_FLAIR.nii", scans[2]], []
    cohort = segment_all(inputs, model, tmp_path / "masks", request=Request(method="windowed"), notify=lines.append)
    assert list(cohort.failed) == [bad, inputs[4]]
    results = [line for line in lines if line[0].isdigit() and "/6  " in line]
    assert [line.partition("/")[0] for line in results] == ["1", "2", "3", "4", "5", "6"]
    assert all(str(path) in line for path, line in zip(inputs, results, strict=True))
    assert ["failed: " in line for line in results] == [False, True, False, False, True, False]
    assert [line.endswith(" left") for line in results] == [True, False, True, True, False, False]
    assert [line for line in lines if "Keras" in line] == ["windowed on Keras, float32"]
    assert any(line.startswith("4 of 6 scans in ") and line.endswith("scans an hour") for line in lines)
    masks = [tmp_path / "masks" / f"{scan.parent.name}_3DFLAIR_mask.nii.gz" for scan in scans[:4]]
    loaded = load_network(model)
    for path, scan in zip(masks, scans[:4], strict=True):
        alone = segment(scan, loaded, method="windowed")
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), alone.voxels)
        about = read_json(path.with_name(path.name.replace("_mask.nii.gz", ".json")))
        assert about["result"]["volume_ml"] == pytest.approx(alone.voxels.sum() * np.prod(alone.spacing) / 1000)
        assert about["scan"]["shape"] == list(alone.voxels.shape)


def test_a_rate_is_told_only_of_scans_that_were_segmented(model, tmp_path):
    bad, lines = [tmp_path / f"{name}_FLAIR.nii" for name in ("a", "b")], []
    for path in bad:
        path.write_bytes(b"no scan")
    segment_all(bad, model, tmp_path / "masks", PLAIN, notify=lines.append)
    assert not any("an hour" in line for line in lines)


def test_a_line_on_a_failure_names_its_scan_once(model, tmp_path, monkeypatch):
    inputs, lines = [tmp_path / "a_FLAIR.mha", tmp_path / "b_FLAIR.nii"], []
    SimpleITK = pytest.importorskip("SimpleITK")
    SimpleITK.WriteImage(SimpleITK.Image([8, 8, 8], SimpleITK.sitkInt16), str(inputs[0]))
    inputs[1].write_bytes(b"no scan")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)  # as if it were not installed; the sentence names no scan
    segment_all(inputs, model, tmp_path / "masks", notify=lines.append)
    failures = [line for line in lines if "/2  failed: " in line]
    assert [line.count(str(path)) for path, line in zip(inputs, failures, strict=True)] == [1, 1]


def test_a_single_scan_whose_process_was_killed_is_missing_and_forgotten_when_it_is_gone(scans, model, tmp_path):
    out, killed, scan = tmp_path / "out", tmp_path / "killed", tmp_path / "a_FLAIR.nii.gz"
    shutil.copy(scans[0], scan)

    def notify(line):
        if line.endswith("float32") and not killed.exists():
            shutil.copytree(out, killed)

    segment_all([scan], model, out, request=PLAIN, notify=notify)
    assert not (out / ".planar3d").exists()
    (claim,) = killed.glob(".planar3d/claim-*.json")
    write_json(claim, read_json(claim) | {"born": "1"})
    (killed / ".writing-abcd_123-a_FLAIR_mask.nii.gz").mkdir()
    assert "died while segmenting it" in CohortFolder(killed).standing().missing[str(scan)]
    scan.unlink()
    segment_all(scans[1:2], model, killed, request=PLAIN, notify=str)
    assert not [*killed.glob(".*")]


def test_a_run_folder_is_no_output_folder(scans, model, tmp_path):
    for name in ("recipe.json", "folds.json"):
        write_json(tmp_path / name, {})
    with pytest.raises(RunError, match="is a run folder of planar3d crossval; name another folder with --out"):
        segment_all(scans[:1], model, tmp_path, request=PLAIN, notify=str)


def test_what_looks_like_flair_and_cannot_be_read_counts_as_failed(scans, model, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(scans[0], folder / "a_FLAIR.nii.gz")
    (folder / "b_FLAIR.mgz").touch()
    (folder / "c_FLAIR.nii.gz").symlink_to("annexed")
    (folder / "a_FLAIR.nii").symlink_to("annexed")  # of the name of a scan that can be read
    for _ in range(2):
        cohort = segment_all([folder], model, tmp_path / "out", request=PLAIN, notify=str)
        assert [record["scan"]["name"] for record in cohort.records] == ["a_FLAIR"]
        names = {path.name: why for path, why in cohort.failed.items()}
        assert set(names) == {"b_FLAIR.mgz", "c_FLAIR.nii.gz", "a_FLAIR.nii"}
        assert all(str(path) in why for path, why in cohort.failed.items())


def test_a_record_names_every_file_and_what_made_the_mask(segmented, model):
    out, cohort = segmented
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [
            "report.html",
            "scans.csv",
            "lesions.csv",
            *(name for record in cohort.records for name in record["files"].values()),
        ]
    )
    for record in cohort.records:
        assert set(record["files"]) == set(ALL.files)
        assert read_json(out / record["files"]["record"]) == record
        assert record["model"]["sha256"] == file_sha256(model)
        assert Recipe.from_json(record["recipe"], "record") == RECIPE
        assert record["how"]["description"].endswith("float32")
        assert {"planar3d", "python", "keras", "numpy"} <= record["versions"].keys()
        mask = read_mask(out / record["files"]["mask"])
        assert sum(lesion["voxels"] for lesion in record["lesions"]) == mask.voxels.sum()
        probability = read_scan(out / record["files"]["probability"])
        assert probability.voxels.shape == mask.voxels.shape and 0 <= probability.limits[0] < probability.limits[1] <= 1


def test_what_is_done_is_not_done_again(segmented, scans, model, monkeypatch):
    out, cohort = segmented
    summing = {"report.html", "scans.csv", "lesions.csv"}
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.name not in summing}
    monkeypatch.setattr(segmenter, "predictor", None)
    lines: list[str] = []
    again = segment_all(scans[:3], model, out, request=ALL, notify=lines.append)
    assert again.records == cohort.records and not again.failed
    assert sum("already exists" in line for line in lines) == 3
    assert before == {path: path.stat().st_mtime_ns for path in before}
    none = segment_all(scans[:3], model, out, request=ALL, notify=lines.append, takes=lambda name: False)
    assert not none.records and "this part is empty: there are only 3 scans" in lines


def test_many_scans_that_are_done_are_not_read_again_and_each_record_only_twice(scans, model, tmp_path, monkeypatch):
    copies = [Path(shutil.copy(scans[0], tmp_path / f"{name}_FLAIR.nii.gz")) for name in "abc"]
    out, read, digested = tmp_path / "out", list[str](), list[Path]()
    first = segment_all(copies, model, out, request=PLAIN, notify=str)
    for module in (earlier, records):
        monkeypatch.setattr(module, "read_record", lambda path: read.append(path.name) or read_record(path))
    monkeypatch.setattr(records, "files_sha256", lambda files: digested.extend(files) or files_sha256(files))
    assert segment_all(copies, model, out, request=PLAIN, notify=str).records == first.records
    assert not digested and max(Counter(read).values()) == 2  # whether it is done, and for the tables
    shutil.copy(scans[1], copies[1])
    assert [*segment_all(copies, model, out, request=PLAIN, notify=str).failed] == copies[1:2]
    assert digested == copies[1:2]


def test_what_else_is_asked_later_is_added_and_the_mask_stays(segmented, scans, model, tmp_path):
    _, cohort = segmented
    first = segment_all(scans[:1], model, tmp_path, request=PLAIN, notify=str).records[0]
    assert set(first["files"]) == {"record", "mask", "lesions"}
    second = segment_all(scans[:1], model, tmp_path, request=replace(PLAIN, overlay=True), notify=str).records[0]
    assert (tmp_path / second["files"]["overlay"]).is_file()
    assert first["result"] == second["result"] == cohort.records[0]["result"]
    third = segment_all(scans[:1], model, tmp_path, request=replace(PLAIN, report=True), notify=str).records[0]
    assert set(third["files"]) == {"record", "mask", "lesions", "overlay", "report"}
    other = RECIPE.changed(threshold=first["recipe"]["targets"]["threshold"] / 2)
    segment_all(scans[:1], Model.open(model, other), tmp_path, replace(PLAIN, overwrite=True), notify=str)
    assert not any((tmp_path / third["files"][name]).exists() for name in ("overlay", "report"))


def test_the_page_of_all_scans_shows_what_was_segmented_since_it_was_written(scans, model, tmp_path):
    segment_all(scans[:1], model, tmp_path, request=replace(PLAIN, report=True), notify=str)
    segment_all(scans[1:3], model, tmp_path, request=PLAIN, notify=str)
    assert "Lesions of 3 scans" in (tmp_path / "report.html").read_text()


def test_a_page_of_all_scans_that_cannot_be_written_again_stops_no_later_run(scans, model, tmp_path, monkeypatch):
    segment_all(scans[:1], model, tmp_path, request=replace(PLAIN, report=True), notify=str)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    lines: list[str] = []
    assert len(segment_all(scans[1:3], model, tmp_path, request=PLAIN, notify=lines.append).records) == 2
    assert lines[-1].startswith(
        f"{tmp_path / 'report.html'} is out of date. Figures, reports and the phantom need jinja2"
    )
    with pytest.raises(Planar3DError, match="need jinja2"):
        segment_all(scans[1:3], model, tmp_path, request=replace(PLAIN, report=True), notify=str)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda mask, record: mask.write_bytes(mask.read_bytes() + b" "), "changed after it was written"),
        (lambda mask, record: record.unlink(), "says how it was made"),
        (
            lambda mask, record: record.write_text(record.read_text().replace('"depth": 16', '"depth": 8')),
            "recipe",
        ),
    ],
)
def test_a_mask_of_another_origin_is_not_replaced_unasked(segmented, scans, model, tmp_path, change, sentence):
    out = Path(shutil.copytree(segmented[0], tmp_path / "masks"))
    mask, record = (out / segmented[1].records[0]["files"][name] for name in ("mask", "record"))
    change(mask, record)
    altered = mask.read_bytes()
    refused = segment_all(scans[:3], model, out, request=ALL, notify=str)
    assert list(refused.failed) == [scans[0]] and sentence in refused.failed[scans[0]]
    assert mask.read_bytes() == altered
    cohort = segment_all(scans[:1], model, out, request=replace(PLAIN, overwrite=True), notify=str)
    assert cohort.records[0]["result"] == segmented[1].records[0]["result"]


def test_what_shows_a_replaced_mask_does_not_stay_beside_the_new_one(segmented, scans, model, tmp_path):
    out = Path(shutil.copytree(segmented[0], tmp_path / "masks"))
    (out / "01A_3DFLAIR_notes.txt").touch()
    before = segmented[1].records[0]
    other = RECIPE.changed(threshold=before["recipe"]["targets"]["threshold"] / 2)
    request = replace(PLAIN, overwrite=True, instances=True)
    after = segment_all(scans[:3], Model.open(model, other), out, request, notify=str).records[0]
    assert after["result"]["mask_sha256"] != before["result"]["mask_sha256"]
    left = {path.name for path in out.glob("01A_*")}
    assert left == {*after["files"].values(), "01A_3DFLAIR_notes.txt"}
    assert set(before["files"].values()) - left == {f"01A_3DFLAIR_{name}" for name in _SHOWING}


def test_files_of_another_origin_are_not_replaced(scans, model, tmp_path):
    scan, sidecar, table = (tmp_path / name for name in ("a_FLAIR.nii.gz", "a_FLAIR.json", "scans.csv"))
    shutil.copy(scans[0], scan)
    sidecar.write_text('{"EchoTime": 0.1}')
    table.write_text("scan\na_FLAIR.nii.gz\n")
    for path in (table, sidecar):
        before = path.read_text()
        for request in (PLAIN, replace(PLAIN, overwrite=True)):
            with pytest.raises(RunError, match=rf"{path.name} has the name.* but.* another (output )?folder"):
                segment_all([scan], model, tmp_path, request=request, notify=str)
        assert path.read_text() == before
        path.unlink()
    assert [*tmp_path.iterdir()] == [scan]


def test_a_file_that_no_record_names_is_not_replaced_unasked(scans, model, tmp_path):
    files = [tmp_path / f"3DFLAIR_{name}" for name in ("lesions.csv", "report.html", "overlay.png")]
    for own in files:
        own.write_text("mine")
        says = rf"{own.name} exists, but no 3DFLAIR\.json says that planar3d wrote it\. Use"
        with pytest.raises(RunError, match=says):
            segment_all(scans[:1], model, tmp_path, request=ALL, notify=str)
        assert own.read_text() == "mine" and [*tmp_path.iterdir()] == [own]
        own.unlink()
    for own in files:
        own.write_text("mine")
    segment_all(scans[:1], model, tmp_path, request=replace(ALL, overwrite=True), notify=str)
    assert all(own.read_bytes() != b"mine" for own in files)


def test_a_page_of_another_origin_is_replaced_neither_now_nor_later(scans, model, tmp_path):
    page = tmp_path / "report.html"
    page.write_text("<html>mine</html>")
    with pytest.raises(RunError, match=r"report\.html has the name of a .*page of planar3d but is another file\. Ren"):
        segment_all(scans[:1], model, tmp_path, request=replace(ALL, overwrite=True), notify=str)
    segment_all(scans[:1], model, tmp_path, request=PLAIN, notify=str)
    with pytest.raises(RunError, match="another file"):
        write_cohort_report(tmp_path, CohortFolder(tmp_path).read()[1], {})
    assert page.read_text() == "<html>mine</html>"


@pytest.mark.parametrize(("name", "number"), [("colon", errno.EINVAL), ("a:b", errno.EIO), ("a:b", errno.ENOENT)])
def test_a_scan_whose_name_the_file_system_refuses_fails_alone(scans, model, tmp_path, monkeypatch, name, number):
    """As exFAT and Windows' file systems refuse a:b; it had ended the command, and no scan was segmented."""
    given = [shutil.copy(scans[0], tmp_path / f"{each}_FLAIR.nii.gz") for each in (name, "good")]
    reason = os.strerror(number)

    def refuse(path, *how, mkdir=Path.mkdir, **more):
        if name in path.name:
            raise OSError(number, reason, str(path))
        mkdir(path, *how, **more)

    monkeypatch.setattr(Path, "mkdir", refuse)
    made = segment_all(given, model, tmp_path / "masks", PLAIN, str)
    assert len(made.records) == 1 and f"refuses its name ({reason}). Rename the scan" in made.failed[given[0]]


@pytest.mark.parametrize("renamed", range(4))
def test_after_a_kill_between_two_files_the_same_command_completes_them(scans, model, tmp_path, monkeypatch, renamed):
    left = iter(range(renamed))

    def replace_some(old, new, replace=os.replace):
        if ".writing-" in str(Path(old).parent) and next(left, None) is None:
            raise KeyboardInterrupt
        replace(old, new)

    request = replace(PLAIN, probability=True)  # with the record four files
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", replace_some)
        segment_all(scans[:1], model, tmp_path, request=request, notify=str)
    (record,) = segment_all(scans[:1], model, tmp_path, request=request, notify=str).records
    assert len(record["files"]) == 4 and all((tmp_path / file).is_file() for file in record["files"].values())


def test_a_mask_goes_back_to_the_format_of_its_scan_as_well(segmented, scans, model, tmp_path):
    stored = nib.load(scans[0])
    scan = tmp_path / "a_FLAIR.mgz"
    nib.MGHImage(np.asarray(stored.dataobj, np.float32), stored.affine).to_filename(scan)
    request = replace(PLAIN, same_format=True, label_tables=True)
    (record,) = segment_all([scan], model, tmp_path / "out", request=request, notify=str).records
    places = {name: tmp_path / "out" / file for name, file in record["files"].items()}
    assert places["mask"].name == "a_FLAIR_mask.nii.gz" and places["same_format"].name == "a_FLAIR_mask.mgz"
    assert '"lesion"' in places["label_tables"].read_text()
    written = {path for path in (tmp_path / "out").iterdir() if path.suffix != ".csv" or "lesions" in path.stem}
    assert written - {tmp_path / "out/lesions.csv"} == set(places.values())
    np.testing.assert_array_equal(read_mask(places["same_format"]).voxels, read_mask(places["mask"]).voxels)
    (again,) = segment_all(scans[:1], model, tmp_path / "nifti", request=request, notify=str).records
    assert again["files"]["same_format"] == again["files"]["mask"]


def test_scans_of_one_name_segmented_one_by_one_do_not_replace_each_other(scans, model, tmp_path):
    segment_all(scans[:1], model, tmp_path, request=PLAIN, notify=str)
    with pytest.raises(RunError, match="made from another scan"):
        segment_all(scans[1:2], model, tmp_path, request=PLAIN, notify=str)


def test_a_folder_that_cannot_be_written_ends_the_run(scans, model, tmp_path):
    (tmp_path / "masks").touch()
    with pytest.raises(OSError, match="masks"):
        segment_all(scans, model, tmp_path / "masks", notify=str)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_an_interrupted_cohort_leaves_whole_masks_alone(scans, model, tmp_path):
    from forks import run_command

    copies = tmp_path / "scans"
    copies.mkdir()
    for number in range(200):
        (copies / f"{number:03d}_FLAIR.nii.gz").symlink_to(scans[number % len(scans)])
    words = [copies, "--model", model, "--out", tmp_path / "m", "--engine", "keras"]
    process = run_command("predict", words, log := tmp_path / "log")
    deadline = time.monotonic() + 200
    while not (log.exists() and "2/200" in log.read_text()):
        assert process.exitcode is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 128 + signal.SIGINT
    masks = list((tmp_path / "m").glob("*_FLAIR_mask.nii.gz"))
    assert 2 <= len(masks) < 200
    (noted,) = (tmp_path / "m").rglob(".*/*")
    assert noted.name.startswith("request-")  # of claims and half-written files none is left
    for path in masks:
        record = read_json(path.with_name(path.name.replace("_mask.nii.gz", ".json")))
        assert record["result"]["mask_sha256"] == file_sha256(path)
        assert np.isin(np.asarray(nib.load(path).dataobj), (0, 1)).all()


def test_a_model_of_a_later_version_is_used_with_a_recipe_of_ones_own(scans, model, tmp_path):
    later = Path(shutil.copy(model, tmp_path / "later.weights.h5"))
    with h5py.File(later, "a") as file:
        file.attrs["planar3d_recipe"] = json.dumps(RECIPE.to_json() | {"wavelets": 3})
    with pytest.raises(WeightsError, match=r"wavelets.*or name a recipe"):
        segment_all(scans[:1], later, tmp_path / "masks", request=PLAIN, notify=str)
    own = RECIPE.changed(threshold=99)
    cohort = segment_all(scans[:1], Model.open(later, own), tmp_path / "masks", PLAIN, notify=str)
    assert cohort.records[0]["recipe"]["targets"]["threshold"] == cohort.records[0]["model"]["threshold"] == 99


def test_a_models_file_is_read_once_for_what_it_is_and_once_for_its_arrays(scans, model, tmp_path, monkeypatch):
    path, opened, watching = Path(shutil.copy(model, tmp_path / "counted.weights.h5")), [], [True]

    def hook(event, args):
        if watching and event in ("open", "subprocess.Popen") and str(path) in map(str, (args[0], *(args[1] or ()))):
            opened.append(event)

    class Counted(h5py.File):
        def __init__(self, name, *args, **others):
            opened.extend(["HDF5"] * (str(name) == str(path)))
            super().__init__(name, *args, **others)

    with h5py.File(path, "a") as file:
        file.attrs["note"] = "a file that was not tried before"
    sys.addaudithook(hook)
    monkeypatch.setattr(h5py, "File", Counted)
    cohort = segment_all(scans[:2], path, tmp_path / "masks", request=PLAIN, notify=str)
    watching.clear()  # a hook is never removed
    assert len(cohort.records) == 2
    # Its digest before the trial in another process, and its first bytes before the arrays are read.
    assert sorted(opened) == ["HDF5", "HDF5", "open", "open", "subprocess.Popen"]


def test_a_model_that_changes_after_it_was_opened_is_not_used(model, tmp_path):
    path = Path(shutil.copy(model, tmp_path / "model.weights.h5"))
    opened = Model.open(path)
    with h5py.File(path, "a") as file:
        file.attrs["note"] = "another"
    with pytest.raises(WeightsError, match="was changed after it was opened"):
        opened.network()
    meant = replace(opened, path=Path(model), sha256="0" * 64)  # of the file on the host where the run was started
    with pytest.raises(WeightsError, match="differs from the file with which this run started"):
        _segmenter_there((meant,), PLAIN)


def _stand_still(monkeypatch, at, meanwhile):
    """Do something the first time that this process comes to a function."""
    module, name = at
    go_on, stood = getattr(module, name), []

    def stand_still(*args, **kwargs):
        if not stood:
            stood.append(True)
            meanwhile()
        return go_on(*args, **kwargs)

    monkeypatch.setattr(module, name, stand_still)


@pytest.mark.parametrize("dated", ["now", "as before", "in the future"])
def test_a_scan_that_is_replaced_while_it_is_segmented_fails_and_is_segmented_by_the_next_run(
    scans, model, tmp_path, monkeypatch, dated
):
    """As an export or download that arrives late: its digest was recorded with the mask of the former file."""
    scan, out = Path(shutil.copy(scans[0], tmp_path / "flair.nii.gz")), tmp_path / "masks"
    if dated == "in the future":
        os.utime(scan, (2**32, 2**32))
    before = scan.stat()

    def replace_it():
        shutil.copy(scans[4], scan)
        if dated != "now":
            os.utime(scan, ns=(before.st_atime_ns, before.st_mtime_ns))

    _stand_still(monkeypatch, (cohort_task.Segmenter, "predict"), replace_it)
    first = segment_all([scan, scans[1]], model, out, request=PLAIN, notify=str)
    assert "flair.nii.gz was changed while it was segmented" in first.failed[scan]
    second = segment_all([scan, scans[1]], model, out, request=PLAIN, notify=str)
    assert second.records[0]["scan"]["shape"] == list(read_scan(scans[4]).voxels.shape)


def _lose_claims(out):
    for claim in (out / ".planar3d").glob("claim-*.json"):
        claim.write_text(json.dumps(json.loads(claim.read_text()) | {"host": "elsewhere"}))
        os.utime(claim, (0, 0))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("at", [(segmented_module, "write_lesions"), (cohort_task, "write_json")])
def test_a_process_that_stood_still_while_another_host_took_its_scan_over_leaves_that_ones_files_alone(
    scans, model, tmp_path, monkeypatch, at, overwrite
):
    """As a suspended job does that goes on in the middle of writing, or just before its record."""
    out, request, cohorts, theirs = tmp_path / "masks", replace(PLAIN, overwrite=overwrite), [], {}
    if overwrite:
        segment_all(scans[:2], model, out, request=PLAIN, notify=str)

    def take_over():
        _lose_claims(out)
        cohorts.append(segment_all(scans[:2], model, out, request=request, notify=str))
        theirs.update({path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("*FLAIR*")})

    _stand_still(monkeypatch, at, take_over)
    cohorts.append(segment_all(scans[:2], model, out, request=request, notify=str))
    assert [len(cohort.records) for cohort in cohorts] == [2, 2] and not cohorts[1].failed
    assert not list(out.rglob(".*"))
    for path, (content, written) in theirs.items():
        assert path.read_bytes() == content and path.stat().st_mtime_ns == written


def test_a_scan_that_another_process_gives_back_is_segmented_last(scans, model, tmp_path, monkeypatch):
    claim, lines = CohortFolder(tmp_path).claim(plain_names(f"{scans[0].parent.name}_3DFLAIR", tmp_path)), []
    _stand_still(monkeypatch, (segmenter.Segmenter, "load"), claim.release)
    cohort = segment_all(scans[:2], model, tmp_path, PLAIN, lines.append)
    assert [line[:3] for line in lines if "_mask.nii.gz" in line] == ["2/2", "1/2"] and len(cohort.records) == 2
    assert not any("being segmented" in line for line in lines)


def test_what_is_to_be_overwritten_is_segmented_again_if_who_took_it_over_died(scans, model, tmp_path, monkeypatch):
    out, request = tmp_path / "masks", replace(PLAIN, overwrite=True)
    before = segment_all(scans[:1], model, out, request=PLAIN, notify=str).records
    (record,) = out.glob("*FLAIR.json")
    written = record.stat().st_mtime_ns

    def take_over_and_die():
        _lose_claims(out)
        for left in out.glob(".writing-*"):  # who takes over begins with that
            shutil.rmtree(left)

    _stand_still(monkeypatch, (segmented_module, "write_lesions"), take_over_and_die)
    with pytest.raises(RunError, match="was taken over by another process"):
        segment_all(scans[:1], model, out, request=request, notify=str)
    assert record.stat().st_mtime_ns == written
    after = segment_all(scans[:1], model, out, request=request, notify=str).records
    assert record.stat().st_mtime_ns > written and after[0]["result"] == before[0]["result"]


def test_a_new_record_without_its_mask_is_no_failure_where_both_are_overwritten(scans, model, tmp_path, monkeypatch):
    """As of another process that is between the two, or was killed there."""
    segment_all(scans[:1], model, tmp_path, request=PLAIN, notify=str)
    (record,), (mask,) = tmp_path.glob("*FLAIR.json"), tmp_path.glob("*_mask.nii.gz")

    def begin_with_the_record():
        content = read_json(record)
        content["result"]["mask_sha256"] = "0" * 64
        write_json(record, content)

    _stand_still(monkeypatch, (CohortFolder, "claim"), begin_with_the_record)
    cohort = segment_all(scans[:1], model, tmp_path, request=replace(PLAIN, overwrite=True), notify=str)
    assert not cohort.failed and read_json(record)["result"]["mask_sha256"] == file_sha256(mask)


@pytest.mark.parametrize(
    ("then", "sentence"),
    [
        (replace(PLAIN, precision="bf16"), "was made with another precision: default, not bf16. Use"),
        (Request(), "was made with another engine: keras, not auto. Use"),
        (replace(PLAIN, method="windowed"), "was made with another method: auto, not windowed. Use"),
    ],
)
def test_what_differs_from_how_a_mask_was_made_is_said(segmented, scans, model, then, sentence):
    refused = segment_all(scans[:3], model, segmented[0], request=then, notify=str)
    assert len(refused.failed) == 3 and all(sentence in why for why in refused.failed.values())


def test_an_unknown_precision_is_refused_before_a_mask_is_said_to_have_another(segmented, scans, model):
    with pytest.raises(RecipeError, match="precision='bf8' is unknown; choose one of"):
        segment_all(scans[:3], model, segmented[0], request=replace(PLAIN, precision="bf8"), notify=str)


def test_a_scan_whose_name_is_too_long_for_its_outputs_fails_alone_before_any_work(scans, model, tmp_path):
    most = 255 - 18 - len("_mask.nii.gz")  # while they are written, names have a prefix of 18 bytes
    names = ["a" * most, "b" * (most + 1), "ü" * (most // 2 + 1), "c" * 244]  # a mask of the last would have 256 bytes
    for name in names:
        shutil.copy(scans[0], tmp_path / f"{name}.nii.gz")
    given, lines = [tmp_path / f"{name}.nii.gz" for name in (*names[1:], names[0])], []
    cohort = segment_all(given, model, tmp_path / "out", request=PLAIN, notify=lines.append)
    assert [record["scan"]["name"] for record in cohort.records] == names[:1]
    assert list(cohort.failed) == given[:3]
    for path, why in cohort.failed.items():
        size = len(os.fsencode(path.name)) + len("_mask")
        assert why.startswith(f"{path}: the name ") and f"_mask.nii.gz has {size} bytes, but names in {tmp_path}" in why
    with pytest.raises(ScanError, match=r"can have at most 237, as .* 18 longer\. Rename the scan"):
        segment_all(given[:1], model, tmp_path / "other", request=PLAIN, notify=str)
    assert not (tmp_path / "other").exists()


def test_a_scan_whose_outputs_would_be_hidden_is_refused_as_no_table_would_have_it(scans, model, tmp_path):
    hidden = Path(shutil.copy(scans[0], tmp_path / ".a_FLAIR.nii.gz"))
    with pytest.raises(ScanError, match=rf"{hidden}: its record would be the hidden file \.a_FLAIR\.json\. Rename the"):
        segment_all([hidden], model, tmp_path / "out", request=PLAIN, notify=str)


def test_a_scan_whose_name_is_no_text_is_segmented_like_others_and_named_with_backslashes(scans, model, tmp_path):
    names = [b"lat\xe9n_FLAIR.nii.gz", b"br\xe9k_FLAIR.nii.gz", b"$a^{$b$_FLAIR.nii.gz"]  # the last, wrong mathematics
    (tmp_path / "in").mkdir()
    try:
        for name in names:
            shutil.copy(scans[0], os.fsencode(tmp_path / "in") + b"/" + name)
    except OSError:
        pytest.skip("names of files are text here")
    (tmp_path / "in" / os.fsdecode(names[1])).write_bytes(b"no scan")
    shown = replace(PLAIN, overlay=True, report=True)
    cohort = segment_all([tmp_path / "in"], model, tmp_path / "out", request=shown, notify=str, takes=takes_part("1/1"))
    assert len(cohort.records) == 2 and len(CohortFolder(tmp_path / "out").standing().done) == 2
    assert "lat\\udce9n_FLAIR," in (tmp_path / "out/scans.csv").read_text(encoding="utf-8")
    assert "lat%E9n_FLAIR_report.html" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert all((tmp_path / "out" / name).is_file() for record in cohort.records for name in record["files"].values())


def test_a_scan_that_the_system_cannot_read_fails_alone_also_if_it_has_a_mask(scans, model, tmp_path, monkeypatch):
    closed, other, done = (Path(shutil.copy(scans[0], tmp_path / f"{name}_FLAIR.nii.gz")) for name in "abc")
    segment_all([done], model, tmp_path / "out", request=PLAIN, notify=str)
    os.utime(done)  # else it would not be read again

    def refuse(path, *_):
        if path == closed or path == (done,):
            raise PermissionError(13, "Permission denied")
        return open(path, "rb") if isinstance(path, Path) else files_sha256(path)

    monkeypatch.setattr(nifti, "open", refuse, raising=False)
    monkeypatch.setattr(records, "files_sha256", refuse)
    cohort = segment_all([tmp_path], model, tmp_path / "out", request=PLAIN, notify=str)
    assert [record["scan"]["path"] for record in cohort.records] == [str(other)]
    for path in (closed, done):
        assert cohort.failed[path].startswith(f"{path} cannot be read (Permission denied). Check its permissions")


def test_a_scan_that_was_moved_and_whose_mask_was_changed_has_one_row(scans, model, tmp_path):
    first, second = tmp_path / "first_FLAIR.nii.gz", tmp_path / "second_FLAIR.nii.gz"
    for scan, path in zip(scans, (first, second), strict=False):
        shutil.copy(scan, path)
    segment_all([first, second], model, tmp_path / "masks", PLAIN, str)
    (tmp_path / "moved").mkdir()
    moved = first.rename(tmp_path / "moved" / first.name)
    shutil.copy(tmp_path / "masks/second_FLAIR_mask.nii.gz", tmp_path / "masks/first_FLAIR_mask.nii.gz")
    lines: list[str] = []
    assert list(segment_all([moved, second], model, tmp_path / "masks", PLAIN, lines.append).failed) == [moved]
    assert lines[-2:] == ["1 of 2 scans done, 1 failed", f"1 of 2 scans failed: {moved}"]
    rows = list(csv.DictReader((tmp_path / "masks/scans.csv").read_text().splitlines()))
    assert [(row["scan"], row["state"], row["path"]) for row in rows] == [
        ("first_FLAIR", "mask changed", str(moved)),
        ("second_FLAIR", "done", str(second)),
    ]
    assert "was changed after it was written" in rows[0]["failure"]


def test_a_record_says_that_the_orientation_may_be_assumed(scans, model, tmp_path):
    segment_all(scans[:1], model, tmp_path / "known", PLAIN, str)
    scan = nib.load(scans[0])
    nib.save(nib.Nifti1Image(scan.dataobj, None), path := tmp_path / "FLAIR.nii.gz")
    segment_all([path], model, tmp_path / "assumed", replace(PLAIN, assume_affine=True), str)
    known, assumed = (read_record(next((tmp_path / out).glob("*.json"))) for out in ("known", "assumed"))
    assert assumed["scan"]["orientation"] == "LAS" and assumed["how"]["assume_affine"] is True
    assert "assume_affine" not in known["how"]
