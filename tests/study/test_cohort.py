"""Many scans get names of their own, are reported in their order, and give the masks that each gives alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from msseg import TINY, write_msseg

from planar3d.errors import ScanError
from planar3d.inference.segment import segment
from planar3d.networks.planar_resunet import PlanarResUNet
from planar3d.networks.weights_file import load_network, save_weights
from planar3d.recipes import PAPER
from planar3d.study.cohort import find_scans, name_outputs, segment_all

ROOT = Path(__file__).parents[2]
RECIPE = PAPER.with_settings([*TINY])


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return sorted(write_msseg(tmp_path_factory.mktemp("msseg")).rglob("3DFLAIR.nii.gz"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    network = PlanarResUNet((16, 32, 32, 3), encoder_weights=None, decoder_filters=(4, 4, 4, 4), bridge_filters=4)
    return save_weights(network, tmp_path_factory.mktemp("model") / "tiny.weights.h5", RECIPE)


def test_scans_of_one_name_are_told_apart_by_their_folders():
    scans = [Path("/d/01A/3DFLAIR.nii.gz"), Path("/d/01B/3DFLAIR.nii")]
    assert list(name_outputs(scans)) == ["01A_3DFLAIR", "01B_3DFLAIR"]
    assert list(name_outputs(scans[:1])) == ["3DFLAIR"]
    with pytest.raises(ScanError, match="given twice"):
        name_outputs([scans[0], scans[0]])
    with pytest.raises(ScanError, match="given twice"):
        name_outputs([Path("a.nii"), Path("./a.nii"), Path("b/../a.nii")])
    with pytest.raises(ScanError, match=r"a.nii and a.nii.gz would have masks of one name"):
        name_outputs([Path("a.nii"), Path("a.nii.gz")])


def test_links_are_named_by_themselves(tmp_path):
    (tmp_path / "MD5E-s1--0").touch()
    for name in ("a_FLAIR.nii", "b_FLAIR.nii"):
        (tmp_path / name).symlink_to(tmp_path / "MD5E-s1--0")
    assert list(name_outputs(find_scans([tmp_path]))) == ["a_FLAIR", "b_FLAIR"]


def test_a_folder_without_scans_is_refused(tmp_path):
    (tmp_path / "T1.nii.gz").touch()
    with pytest.raises(ScanError, match="FLAIR in its name"):
        find_scans([tmp_path])


def test_masks_equal_those_of_each_scan_alone_and_lines_follow_the_input(scans, model, tmp_path):
    bad = tmp_path / "bad_FLAIR.nii.gz"
    bad.write_bytes(b"no scan")
    inputs, lines = [scans[3], bad, *scans[:2], tmp_path / "absent_FLAIR.nii", scans[2]], []
    failed = segment_all(inputs, model, tmp_path / "masks", notify=lines.append, method="windowed")
    assert failed == [bad, inputs[4]]
    results = [line for line in lines if line[0].isdigit() and "/6  " in line]
    assert [line.partition("/")[0] for line in results] == ["1", "2", "3", "4", "5", "6"]
    assert all(str(path) in line for path, line in zip(inputs, results, strict=True))
    assert ["failed: " in line for line in results] == [False, True, False, False, True, False]
    assert [line for line in lines if "Keras" in line] == ["windowed on Keras"]
    assert any(line.startswith("4 of 6 scans in ") and line.endswith("scans an hour") for line in lines)
    written = sorted((tmp_path / "masks").iterdir())
    assert [path.name for path in written] == [f"{i}_3DFLAIR_mask.nii.gz" for i in ("01A", "01B", "07A", "07B")]
    loaded = load_network(model)
    for path, scan in zip(written, scans[:4], strict=True):
        alone = segment(scan, loaded, method="windowed")
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), alone.voxels)


def test_a_folder_that_cannot_be_written_ends_the_run(scans, model, tmp_path):
    (tmp_path / "masks").touch()
    with pytest.raises(OSError, match="masks"):
        segment_all(scans, model, tmp_path / "masks", notify=str)


def test_an_interrupted_cohort_leaves_whole_masks_alone(scans, model, tmp_path):
    copies = tmp_path / "scans"
    copies.mkdir()
    for number in range(200):
        (copies / f"{number:03d}_FLAIR.nii.gz").symlink_to(scans[number % len(scans)])
    # A shell that runs the tests in the background has their processes ignore the signal.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = [sys.executable, "-u", "-c", f"{heed}; from planar3d.cli import main; main()"]
    process = subprocess.Popen(
        [*program, "predict", copies, "--model", model, "--out", tmp_path / "m"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    seen = ""
    while "2/200" not in seen:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode not in (0, 2)
    written = list((tmp_path / "m").iterdir())
    assert 2 <= len(written) < 200
    for path in written:
        assert path.name.endswith("_FLAIR_mask.nii.gz")
        assert np.isin(np.asarray(nib.load(path).dataobj), (0, 1)).all()
