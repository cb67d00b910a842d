"""A mask may be stored along other axes than its scan; what does not match, or is no mask, is refused with advice."""

import tracemalloc
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
from stored_scans import TURNS, turned

from planar3d.errors import ScanError
from planar3d.evaluation.figures import overlay
from planar3d.evaluation.lesion_table import lesion_table
from planar3d.evaluation.viewer import prepare_pictures
from planar3d.inference.prepared_scan import prepare
from planar3d.recipes import PAPER
from planar3d.scans.volume import Scan, on_grid_of, read_mask, read_scan

RNG = np.random.default_rng(0)
OBLIQUE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.5, -0.3, 0.785) * (0.9, 1, 3), (5, -60, 12))
SHEARED = OBLIQUE @ np.array([[1, 0.4, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
GRIDS = {"straight": np.diag([-1.0, -1, 2, 1]), "oblique": OBLIQUE, "sheared": SHEARED}


def _scan_and_mask(shape):
    voxels = RNG.random(shape, np.float32)
    return voxels, (voxels > 0.8).astype(np.uint8)


@pytest.mark.parametrize("shape", [(4, 5, 6), (5, 5, 5)])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_mask_stored_in_any_orientation_is_turned_to_its_scan(write_nifti, grid, shape):
    voxels, mask = _scan_and_mask(shape)
    scan = read_scan(write_nifti(voxels, affine=GRIDS[grid]))
    for turn in TURNS:
        stored, affine = turned(mask, GRIDS[grid], turn)
        found = read_mask(write_nifti(stored, "m.nii.gz", affine), scan)
        np.testing.assert_array_equal(found.voxels, mask)
        np.testing.assert_array_equal(found.affine, scan.affine)
        assert found.header.get_data_shape() == shape


def test_a_turned_mask_may_have_a_trailing_axis_other_codes_and_a_rounded_affine(write_nifti, tmp_path):
    voxels, mask = _scan_and_mask((4, 5, 6))
    scan = read_scan(write_nifti(voxels, affine=OBLIQUE))
    stored, affine = turned(mask, OBLIQUE, TURNS[13])
    image = nib.Nifti1Image(stored[..., None], None)
    image.set_qform(affine, code=1)
    image.set_sform(None, code=0)
    nib.save(image, tmp_path / "m.nii")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii", scan).voxels, mask)
    path = write_nifti(stored, "m.nii.gz", affine + RNG.uniform(-0.001, 0.001, (4, 4)) * [[1], [1], [1], [0]])
    np.testing.assert_array_equal(read_mask(path, scan).voxels, mask)


@pytest.mark.parametrize("shape", [(4, 5, 6), (5, 5, 5)])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_mask_that_is_mirrored_moved_or_swapped_in_space_is_refused(write_nifti, grid, shape):
    voxels, mask = _scan_and_mask(shape)
    scan = read_scan(write_nifti(voxels, affine=GRIDS[grid]))
    mirror, swap, moved = np.diag([-1.0, 1, 1, 1]), np.eye(4)[[1, 0, 2, 3]], np.eye(4)
    moved[0, 3] = 1
    # A cube with two axes swapped lies where it lay.
    for change in (mirror, moved, *((swap,) if len(set(shape)) > 1 else ())):
        for turn in TURNS[::7]:
            stored, affine = turned(mask, GRIDS[grid], turn)
            with pytest.raises(ScanError, match=r"does not match.*Look at both in a viewer|has shape") as refused:
                read_mask(
                    write_nifti(stored, "m.nii.gz", GRIDS[grid] @ change @ np.linalg.inv(GRIDS[grid]) @ affine), scan
                )
            assert "Fix its header" not in str(refused.value)
    with pytest.raises(ScanError, match=r"has shape .* resample the mask to the scan"):
        read_mask(write_nifti(mask[:-1], "m.nii.gz", GRIDS[grid]), scan)


def test_a_mask_without_geometry_is_stored_like_its_scan_if_the_user_says_so(write_nifti):
    voxels, mask = _scan_and_mask((4, 5, 6))
    scan = read_scan(write_nifti(voxels, affine=OBLIQUE))
    bare = {"sform_code": 0, "qform_code": 0}
    path = write_nifti(mask, "m.nii.gz", **bare)
    with pytest.raises(ScanError, match="If it is stored voxel by voxel like its scan, add --assume-affine"):
        read_mask(path, scan)
    np.testing.assert_array_equal(read_mask(path, scan, assume_affine=True).voxels, mask)
    with pytest.raises(ScanError, match="has shape"):
        read_mask(write_nifti(mask.T, "m.nii.gz", **bare), scan, assume_affine=True)
    both = read_scan(write_nifti(voxels, **bare), assume_affine=True)
    path = write_nifti(mask, "m.nii.gz", **bare)
    np.testing.assert_array_equal(read_mask(path, both, assume_affine=True).voxels, mask)
    alone = read_mask(path, assume_affine=True)
    assert nib.aff2axcodes(alone.affine) == ("L", "A", "S")


def test_every_layer_turns_a_mask_in_memory(tmp_path):
    voxels, mask = _scan_and_mask((12, 14, 16))
    scan, straight = (Scan(v, nib.Nifti1Image(v, OBLIQUE).header) for v in (voxels, mask))
    stored, affine = turned(mask, OBLIQUE, TURNS[29])
    other = Scan(stored, nib.Nifti1Image(stored, affine).header)
    probability = Scan(stored * np.float32(0.5), other.header)
    np.testing.assert_array_equal(on_grid_of(scan, other).voxels, mask)
    prepared = prepare(scan, PAPER, size=16)
    np.testing.assert_array_equal(prepared.align(other), prepared.align(straight))
    assert all(lesion.mean_probability == 0.5 for lesion in lesion_table(straight, probability))
    shown = [prepare_pictures(scan, each).volumes["mask"] for each in (straight, other)]
    np.testing.assert_array_equal(*shown)
    pytest.importorskip("matplotlib")
    pictures = [
        overlay(scan, each, each, tmp_path / f"{number}.png", "").read_bytes()
        for number, each in enumerate((straight, other))
    ]
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([0, 255], r"labels \{0, 255\}.* LOW to HIGH, e\.g\. with: fslmaths \S*m\.nii -thr LOW "),
        ([0, 1, 2], r"labels \{0, 1, 2\}.*Keep only the values of lesions"),
        ([0, 0.25, 1], r"labels \{0, 0\.25, 1\}"),
        ([0, -1], r"labels \{-1, 0\}"),
        (range(51), r"has 51 different values, 0 to 50; name the lesion mask"),
        ([0.9992, 1.0008], "is 1.0008 everywhere"),
        ([1, 1], "is 1 everywhere; a lesion mask of {0, 1} is needed"),
        ([7, 7], "is 7 everywhere; a lesion mask of {0, 1} is needed. Name another"),
        ([0, np.nan], "NaN or infinity in 60 voxels"),
    ],
)
def test_what_is_no_mask_is_refused_with_advice_for_it(write_nifti, values, sentence):
    with pytest.raises(ScanError, match=sentence):
        read_mask(write_nifti(np.resize(np.array(values, np.float32), (4, 5, 6)), "m.nii"))


FSLMATHS = {  # as of FSL 6.0
    "-thr": lambda voxels, least: np.where(voxels >= float(least), voxels, 0),
    "-uthr": lambda voxels, most: np.where(voxels <= float(most), voxels, 0),
    "-abs": lambda voxels, following: np.abs(voxels),
}


@pytest.mark.parametrize(
    ("values", "low", "high", "lesion"),
    [
        ([0, 255], 255, 255, [0, 1]),
        ([0, -1], -1, -1, [0, 1]),
        ([-1, 1], 1, 1, [0, 1]),
        ([0, 0.25, 0.3], 0.1, 1, [0, 1, 1]),
        ([0, 0.25, 0.3], 0.3, 1, [0, 0, 1]),
        ([0, -1, -4], -5, -2, [0, 0, 1]),
        ([0, 1, 2], 1, 1, [0, 1, 0]),
        ([0, 1, 2], 1, 2, [0, 1, 1]),
        ([1, 2], 1, 1, [1, 0]),
    ],
)
def test_the_advised_command_makes_a_mask(write_nifti, values, low, high, lesion):
    voxels = np.resize(np.array(values, np.float32), (4, 6, 6))
    with pytest.raises(ScanError) as refused:
        read_mask(write_nifti(voxels, "m.nii"))
    _, *words, _ = (
        str(refused.value).partition("fslmaths ")[2].replace("LOW", str(low)).replace("HIGH", str(high)).split()
    )
    assert words[-1] == "-bin"
    for operation, following in pairwise(words):
        if operation in FSLMATHS:
            voxels = FSLMATHS[operation](voxels, following)
    mask = read_mask(write_nifti((voxels > 0).astype(np.uint8), "mask.nii"))
    np.testing.assert_array_equal(mask.voxels, np.resize(lesion, (4, 6, 6)))


@pytest.mark.parametrize(
    ("kind", "word"), [(np.complex64, "complex"), (np.dtype([(c, "u1") for c in "RGB"]), "colour")]
)
def test_a_mask_of_another_kind_of_voxels_is_told_what_a_mask_is(write_nifti, kind, word):
    with pytest.raises(ScanError, match=rf"{word} voxels; a lesion mask, .*\{{0, 1\}}"):
        read_mask(write_nifti(np.zeros((4, 5, 6), kind), "m.nii"))


def test_a_large_mask_is_checked_slice_by_slice(write_nifti):
    """Its values and its labels in memory, and not two differences as well: 512³ voxels would take 2 GB."""
    mask = np.zeros((96, 96, 96), np.uint8)
    mask[40:50, 40:50, 40:50] = 1
    path = write_nifti(mask)
    tracemalloc.start()
    read_mask(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 * mask.size
