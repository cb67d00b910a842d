"""A full disk and a read-only folder end in one sentence and leave nothing half-written; with room, the run goes on."""

import subprocess
import sys
import tempfile

import numpy as np
import pytest
from dicom_series import AXIAL, VOXELS, write_series
from msseg import TINY, write_model, write_msseg

from planar3d import cli

SETTINGS = [word for setting in TINY for word in ("--set", setting)]


@pytest.fixture
def disk(tmp_path):
    """Mount a small file system in memory, and return its folder and a function that mounts it anew."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    if sys.platform != "linux" or not mount("size=64k"):
        pytest.skip("file systems cannot be mounted here")
    yield folder, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command, and return its exit code and what it said of an error."""

    def start(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main(getattr(cli, name))
        return ended.value.code or 0, capsys.readouterr().err

    return start


def _half_written(folder):
    return [path for path in folder.rglob(".*") if path.name.startswith(".writing-")]


def test_preparation_stops_at_a_full_disk_and_goes_on_with_room(disk, run, tmp_path):
    folder, remount = disk
    words = ("--data", write_msseg(tmp_path / "data"), "--out", folder / "run", *SETTINGS)
    code, said = run("prepare", *words)
    assert code == 2 and "No space left on device" in said and "prepared" in said and len(said.splitlines()) == 1
    assert not _half_written(folder)
    assert remount("size=16m") and run("prepare", *words)[0] == 0
    assert run("prepare", "--data", tmp_path / "data", "--out", tmp_path / "whole", *SETTINGS)[0] == 0
    for path in (tmp_path / "whole" / "prepared").rglob("*.npy"):
        np.testing.assert_array_equal(np.load(path), np.load(folder / "run" / path.relative_to(tmp_path / "whole")))


def test_training_stops_at_a_full_disk(disk, run, tmp_path, untraced):
    folder, remount = disk
    assert remount("size=2m")  # room for prepared scans, not for weights
    settings = (*SETTINGS, "--set", "bridge_filters=160")
    code, said = run("train", "--data", write_msseg(tmp_path / "data"), "--out", folder / "run", *settings)
    assert code == 2 and "No space left on device" in said and "best.weights.h5" in said
    assert len(said.splitlines()) == 1 and not _half_written(folder)


@pytest.mark.parametrize("options, reason", [("size=8k", "No space left on device"), ("ro", "Read-only file system")])
def test_prediction_stops_where_nothing_can_be_written(disk, run, tmp_path, options, reason):
    folder, remount = disk
    model = write_model(tmp_path)
    data = write_msseg(tmp_path / "data", ids=("01A",))
    assert remount(options)
    scan = next(data.rglob("3DFLAIR.nii.gz"))
    code, said = run("predict", scan, "--model", model, "--out", folder / "masks", "--engine", "keras")
    assert code == 2 and reason in said and not _half_written(folder)
    assert not list(folder.rglob("*_mask.nii.gz"))


@pytest.mark.parametrize("before", [False, True])
def test_a_scan_for_which_the_disk_is_too_small_leaves_none_of_its_files_and_keeps_the_old_ones(
    disk, run, tmp_path, before
):
    folder, remount = disk
    assert remount("size=8m")
    scan = next(write_msseg(tmp_path / "data", ids=("01A",)).rglob("3DFLAIR.nii.gz"))
    words = ("predict", scan, "--model", write_model(tmp_path), "--out", folder / "masks", "--engine", "keras")
    if before:
        assert run(*words)[0] == 0
    old = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    used = sum(len(content) for content in old.values())
    assert remount(f"size={used // 1024 + 48}k")  # room for mask and lesions, not for the map of probabilities
    code, said = run(*words, "--probability", "--overwrite")
    assert code == 2 and "No space left on device. No incomplete file was left behind." in said
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == old
    assert not _half_written(folder)


def test_a_run_in_a_read_only_folder_is_refused(disk, run, tmp_path):
    folder, remount = disk
    data = write_msseg(tmp_path / "data")
    assert remount("ro")
    code, said = run("prepare", "--data", data, "--out", folder / "run", *SETTINGS)
    assert code == 2 and "Read-only file system" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("format", ["onnx", "openvino", "savedmodel"])
def test_an_export_that_does_not_fit_names_its_folder_and_blames_no_layer(disk, run, tmp_path, format):
    if format != "savedmodel":
        pytest.importorskip(format)
    folder, remount = disk
    assert remount("size=24k")
    code, said = run("export", "--model", write_model(tmp_path), "--out", folder, "--format", format)
    start = f"Error: {folder / format}: No space left on device. No incomplete file was left behind. Free space there"
    assert code == 2 and said.startswith(start) and len(said.splitlines()) == 1
    assert not list(folder.iterdir())


@pytest.mark.parametrize("size", ["24k", "40k"])  # room for some copies of the series, and for all but the volume
def test_a_full_folder_of_temporary_files_is_named_and_no_scan_blamed(disk, run, tmp_path, monkeypatch, size):
    pytest.importorskip("dcm2niix")
    folder, remount = disk
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert remount(f"size={size}")
    write_series(tmp_path / "series", VOXELS, AXIAL)
    model = write_model(tmp_path)
    code, said = run("predict", tmp_path / "series", "--model", model, "--out", tmp_path / "masks", "--engine", "keras")
    assert code == 2 and f"Error: {folder}: No space left on device. No incomplete" in said and "TMPDIR" in said
    assert not list(folder.iterdir()) and not list(tmp_path.glob("masks/*.*"))


def test_an_export_for_which_temporary_files_have_no_room_blames_no_layer(disk, run, tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    folder, remount = disk
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    words = ("--model", write_model(tmp_path), "--out", tmp_path / "made", "--format", "litert")
    code, said = run("export", *words)
    assert code == 2 and f"Error: {folder}: No space left on device." in said and "TMPDIR" in said
    assert not list((tmp_path / "made").iterdir())
    assert remount("size=16m") and run("export", *words)[0] == 0
