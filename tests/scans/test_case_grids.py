"""The headers of a case's files show whether they lie on one grid; what they do not show is left to reading."""

import numpy as np
import pytest
from stored_scans import TURNS, turned

from planar3d.errors import ScanError
from planar3d.scans.case import Case, require_one_grid

AFFINE = np.array([[0, 2.0, 0.1, -9], [-1.0, 0, 0, 4], [0, -0.05, 3.0, 7], [0, 0, 0, 1]])
VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
NOWHERE = {"sform_code": 0, "qform_code": 0}


@pytest.fixture
def check(write_nifti):
    """Check a case of two images and a label map, by the keywords of `write_nifti` for the image and the map."""

    def check(image, labels, name="t2.nii"):
        paths = {"t1": write_nifti(VOXELS, "t1.nii", AFFINE), "t2": write_nifti(name=name, **image)}
        require_one_grid([Case("A", paths, write_nifti(name="seg.nii.gz", **labels), "")], ("t1", "t2"))

    return check


GOOD = {"voxels": VOXELS, "affine": AFFINE}
SHORT = {"voxels": VOXELS[..., 1:], "affine": AFFINE}


@pytest.mark.parametrize(
    ("image", "labels", "said"),
    [
        (GOOD, SHORT, r"^1 case cannot be prepared: A\. .*seg.nii.gz has shape \(4, 5, 5\), but .*t1.nii .* mask"),
        (SHORT, SHORT, r"t2.nii has shape \(4, 5, 5\), but .*t1.nii .* Register and resample it"),
        (GOOD, {"voxels": VOXELS.transpose(2, 0, 1), "affine": AFFINE}, r"has shape \(6, 4, 5\)"),
        (GOOD, {"voxels": VOXELS, "affine": AFFINE + np.outer([1, 1, 1, 0], [0, 0, 0, 1])}, "does not match"),
    ],
)
def test_files_that_differ_in_their_grids_are_refused(check, image, labels, said):
    with pytest.raises(ScanError, match=said):
        check(image, labels)


@pytest.mark.parametrize("turn", TURNS[::11])
def test_files_stored_in_another_orientation_are_accepted(check, turn):
    voxels, affine = turned(VOXELS, AFFINE, turn)
    check(GOOD, {"voxels": voxels, "affine": affine})
    check(GOOD, {"voxels": voxels[..., None], "affine": affine})


def test_what_headers_do_not_show_is_left_to_reading(check, tmp_path):
    check(GOOD, SHORT | NOWHERE)  # without geometry
    check(GOOD, {"voxels": np.stack([VOXELS] * 2, -1), "affine": AFFINE})
    check({"voxels": np.stack([VOXELS] * 3, -1), "affine": AFFINE}, GOOD)
    check({"voxels": VOXELS[..., 0], "affine": AFFINE}, GOOD)
    check(GOOD | {"srow_y": np.zeros(4)}, GOOD)  # in no space
    (tmp_path / "t2.nii").write_bytes(b"\x1f\x8b damaged")
    for labels in ("absent.nii", "seg.nii.gz"):
        require_one_grid([Case("A", {"t2": tmp_path / "t2.nii"}, tmp_path / labels, "")], ("t2",))
