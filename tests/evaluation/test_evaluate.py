"""`planar3d evaluate` compares what lies at one place in space, however the two files are stored."""

import json

import nibabel as nib
import numpy as np
import pytest
from stored_scans import TURNS, turned
from typer.testing import CliRunner

from planar3d.cli import app
from planar3d.errors import ScanError
from planar3d.evaluation.scores import score_scan

RNG = np.random.default_rng(0)
SHEARED = np.array([[-1.0, 0.5, 0, 30], [0, 1.2, 0.3, -20], [0, 0, 2, 5], [0, 0, 0, 1]])
BARE = {"sform_code": 0, "qform_code": 0}


def _evaluate(*words):
    done = CliRunner().invoke(app, ["evaluate", *map(str, words), "--json"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(done.stdout)


def _masks(shape):
    reference, change = RNG.random(shape) > 0.7, RNG.random(shape) > 0.9
    return reference, reference ^ change


@pytest.mark.parametrize("shape", [(5, 6, 7), (6, 6, 6)])
@pytest.mark.parametrize("order", [0, 1])
def test_scores_do_not_depend_on_how_either_file_is_stored(write_nifti, shape, order):
    reference, prediction = _masks(shape)
    expected = score_scan(reference, prediction, SHEARED)
    assert expected["reference_ml"] == pytest.approx(reference.sum() * abs(np.linalg.det(SHEARED)) / 1000)
    for turn in TURNS[1::9]:
        turns = [TURNS[0], turn] if order else [turn, TURNS[0]]
        paths = [
            write_nifti(stored.astype(np.uint8), name, affine)
            for name, (stored, affine) in zip(
                ("p.nii", "r.nii"),
                (turned(m, SHEARED, t) for m, t in zip((prediction, reference), turns, strict=True)),
                strict=True,
            )
        ]
        assert _evaluate(*paths) == pytest.approx(expected, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("bare", ["prediction", "reference", "both"])
def test_masks_without_geometry_are_scored_if_the_user_says_how_they_are_stored(write_nifti, bare):
    reference, prediction = (m.astype(np.uint8) for m in _masks((5, 6, 7)))
    place = np.array([[0, 1.0, 0, 40], [2, 0, 0, -30], [0, 0, 3, 9], [0, 0, 0, 1]])
    first, second = (
        write_nifti(mask, f"{name}.nii.gz", place, **(BARE if bare in (name, "both") else {}))
        for name, mask in (("prediction", prediction), ("reference", reference))
    )
    stored = "its axes run left, anterior, superior" if bare == "both" else "it is stored voxel by voxel like its scan"
    with pytest.raises(ScanError, match=f"{stored}, add --assume-affine"):
        _evaluate(first, second)
    expected = score_scan(reference, prediction, (2, 1, 3))
    assert _evaluate(first, second, "--assume-affine") == pytest.approx(expected, nan_ok=True)


def test_voxels_right_behind_a_header_that_says_0_are_compared(write_nifti):
    mask = _masks((5, 6, 7))[0].astype(np.uint8)
    assert _evaluate(write_nifti(mask, "p.nii", vox_offset=0), write_nifti(mask, "r.nii"))["dice"] == 1
    assert nib.load(write_nifti(mask, "p.nii")).header["vox_offset"] in (0, 352)


def test_counts_are_printed_whole_and_a_few_false_alarms_are_not_rounded_away(write_nifti):
    prediction = np.zeros((60, 60, 60), np.uint8)
    prediction[::2, ::2, 1::2] = 1
    reference = prediction.copy()
    prediction[::20, 0, 0], reference[0, 0, 1] = 1, 0
    words = [
        "evaluate",
        write_nifti(prediction, "p.nii", np.diag([-2.0, 2, 2, 1])),
        write_nifti(reference, "r.nii", np.diag([-2.0, 2, 2, 1])),
    ]
    shown = dict(line.split() for line in CliRunner().invoke(app, [str(word) for word in words]).stdout.splitlines())
    assert shown["reference_lesions"] == "26999" and shown["specificity"] == "0.99998"
