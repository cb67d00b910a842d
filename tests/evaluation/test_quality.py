"""Each check fires on what it is for, and none on a scan that is as it should be."""

from functools import cache

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from stored_scans import TURNS, scan_along, turned

from planar3d.evaluation.quality import check_quality
from planar3d.evaluation.scan_checks import contrast_of
from planar3d.scans.head import filled, find_head
from planar3d.scans.phantom_head import TISSUES, build_head
from planar3d.scans.targets import Binary, Classes, Regions
from planar3d.scans.volume import Scan, read_mask, read_scan

MM = 3
SMALL = np.diag([2.5, 2.5, 2.5, 1])  # a child's head, whose pixels are fine enough for every measure
FLAIR = {"white": 1, "grey": 1.2, "fluid": 0.2, "marrow": 0.5, "fat": 2, "muscle": 0.6}
OTHERS = {
    "T1": {"white": 1, "grey": 0.72, "fluid": 0.25, "marrow": 0.9, "fat": 1.7, "muscle": 0.6},
    "T2": {"white": 1, "grey": 1.35, "fluid": 2.7, "marrow": 0.8, "fat": 1.6, "muscle": 0.6},
    "PD": {"white": 1, "grey": 1.2, "fluid": 1.15, "marrow": 0.8, "fat": 1.4, "muscle": 0.8},
}


@cache
def _voxels(extracted=False, **contrast):
    """A head of the phantom, or its brain, on a grid of 3 mm voxels stored right, anterior, superior."""
    head = build_head(MM)
    signal = head.flair(contrast or FLAIR)
    if extracted:
        brain = sum(head.fractions[TISSUES.index(tissue)].astype(int) for tissue in ("white", "grey"))
        bottom = round((-60 - head.origin[2]) / MM)
        outside = np.ones(signal.shape, bool)
        outside[:, :, bottom:] = brain[:, :, bottom:] < 100
        return np.where(outside, 0, 300 * signal).astype(np.float32)
    noise = np.abs(np.random.default_rng(0).normal(0, 8, signal.shape))
    return np.pad(300 * signal + noise, ((4, 4), (4, 4), (0, 4)), mode="linear_ramp", end_values=8).astype(np.float32)


def _scan(voxels, affine=None):
    return Scan(voxels, nib.Nifti1Image(voxels, np.diag([MM, MM, MM, 1]) if affine is None else affine).header)


def _mask(scan, fraction=0.002):
    """A block of lesion in the middle, that fraction of all voxels."""
    voxels = np.zeros(scan.voxels.shape, np.uint8)
    voxels[tuple(slice(round(n / 2 - n * fraction ** (1 / 3) / 2), n // 2 + 1) for n in voxels.shape)] = fraction > 0
    return Scan(voxels, scan.header)


def _fired(voxels, affine=None, whole_head=None):
    scan = _scan(np.ascontiguousarray(voxels), affine)
    return {warning.check for warning in check_quality(scan, _mask(scan), whole_head)}


def test_a_load_that_the_model_cannot_tell_from_its_false_alarms_is_told():
    scan = _scan(_voxels())
    mask = _mask(scan)
    marked_ml = np.count_nonzero(mask.voxels) * MM**3 / 1000
    for false_ml, expected in ((1.1 * marked_ml, {"few lesions"}), (0.9 * marked_ml, set())):
        assert {w.check for w in check_quality(scan, mask, measured={"false_alarms_ml": false_ml})} == expected
    empty = _mask(scan, 0)
    assert {w.check for w in check_quality(scan, empty, measured={"false_alarms_ml": 9.0})} == {"empty result"}


def test_a_scan_unlike_those_that_the_model_was_measured_on_is_told():
    for extracted in (False, True):
        scan = _scan(_voxels(extracted=extracted))
        for measured, fires in (
            ({"spacing_mm": [1.0, 3.0], "extracted": [True, False]}, False),
            ({"spacing_mm": [4.0, 8.0]}, True),
            ({"spacing_mm": [0.9, 2.0]}, True),
            ({"extracted": [not extracted]}, True),
        ):
            found = {w.check: w.sentence for w in check_quality(scan, _mask(scan), measured=measured)}
            assert set(found) == ({"not measured"} if fires else set())


def test_nothing_is_said_of_a_scan_that_suits_the_model():
    assert _fired(_voxels(), whole_head=True) == set()
    assert _fired(_voxels(extracted=True), whole_head=False) == set()


def test_standardized_values_are_told_and_change_no_other_check():
    for extracted in (False, True):
        raw = _voxels(extracted=extracted)
        brain = raw > 100
        scores = ((raw - raw[brain].mean()) / raw[brain].std()).astype(np.float32)
        for standardized in (scores, np.where(brain, scores, 0)):
            assert _fired(standardized, whole_head=not extracted) == {"values"}


@pytest.mark.parametrize("contrast", OTHERS)
def test_another_contrast_is_not_flair(contrast):
    scan = _scan(_voxels(**OTHERS[contrast]), SMALL)
    (sentence,) = (each.sentence for each in check_quality(scan, _mask(scan)) if each.check == "contrast")
    fluid, near_to_far = contrast_of(find_head(scan))
    assert f"{near_to_far if contrast == 'T1' else fluid:.1%}" in sentence and "FLAIR scan" in sentence


def test_air_in_the_base_of_the_skull_is_not_taken_for_dark_fluid():
    voxels = _voxels(**OTHERS["T2"]).copy()
    head = find_head(_scan(voxels))
    voxels[head.centre & (head.below_vertex > 95)] = 0
    assert np.mean(voxels[head.centre] == 0) > 0.02
    assert "contrast" in _fired(voxels)


def test_a_flair_scan_whose_fluid_is_not_dark_is_told():
    assert "contrast" in _fired(_voxels(**FLAIR | {"fluid": 0.7}))


def test_pixels_that_mix_cortex_with_fluid_say_nothing_of_it():
    """As of the phantom at reduced size."""
    voxels = _voxels(**OTHERS["T1"])
    assert "contrast" in _fired(voxels, SMALL) and "contrast" not in _fired(voxels)
    fine = voxels.repeat(3, axis=0).repeat(3, axis=1)  # of which every third pixel is looked at, 2.8 mm apart
    assert "contrast" in _fired(fine, np.diag([0.9375, 0.9375, 3, 1]))


def test_a_ct_is_not_flair():
    head = find_head(_scan(_voxels()))
    hounsfield = np.where(head.inside, 40, -1000)
    hounsfield[(head.depth > 5) & (head.depth < 12)] = 1500
    assert "contrast" in _fired(hounsfield.astype(np.float32))


@pytest.mark.parametrize("mm", [0.5, 4.0, 6.0])
def test_voxels_within_a_distance_are_those_of_the_distance_map(mm):
    head = find_head(_scan(_voxels()), (1.5, 2.0, 2.5))
    marked = np.random.default_rng(0).random(head.grey.shape) > 0.99
    marked[:, :, 0] = False
    np.testing.assert_array_equal(head.within(marked, mm), head.distance_to(marked) <= mm)


def test_holes_of_a_volume_and_of_slices_are_those_that_scipy_fills():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random(rng.integers(1, 12, 3)) > rng.random()
        in_slices = [ndimage.binary_fill_holes(mask[:, :, k]) for k in range(mask.shape[2])]
        np.testing.assert_array_equal(filled(mask), ndimage.binary_fill_holes(mask))
        np.testing.assert_array_equal(filled(mask, in_slices=True), np.stack(in_slices, axis=2))


def test_an_extracted_brain_and_a_whole_head_are_told_apart():
    assert find_head(_scan(_voxels())).is_extracted is False
    assert find_head(_scan(_voxels(extracted=True))).is_extracted is True
    assert _fired(_voxels(extracted=True), whole_head=True) == {"skull-stripped"}
    assert _fired(_voxels(), whole_head=False) == {"skull-stripped"}


def test_a_head_whose_air_was_set_to_zero_still_has_its_skull():
    head = _voxels()
    assert _fired(np.where(find_head(_scan(head)).inside, head, 0), whole_head=True) == set()


HALVES = {
    "left": np.s_[45:],
    "right": np.s_[:-45],
    "posterior": np.s_[:, 60:],
    "anterior": np.s_[:, :-60],
    "superior": np.s_[:, :, :-30],
}


@pytest.mark.parametrize("side", HALVES)
@pytest.mark.parametrize("emptied", [False, True], ids=["cropped", "set to zero"])
def test_a_head_that_is_cut_off_is_told_with_its_side(side, emptied):
    whole = _voxels()
    part = whole[HALVES[side]]
    if emptied:
        part = np.zeros_like(whole)
        part[HALVES[side]] = whole[HALVES[side]]
    scan = _scan(np.ascontiguousarray(part))
    (sentence,) = (each.sentence for each in check_quality(scan, _mask(scan)) if each.check == "cut off")
    assert f"the {side} side" in sentence


def test_a_field_of_view_that_ends_at_the_neck_is_whole_and_one_that_ends_at_the_ears_is_not():
    head = _voxels()
    top = np.flatnonzero(find_head(_scan(head)).inside.any(axis=(0, 1)))[-1] + 1
    assert _fired(head[:, :, top - 135 // MM :]) == set()
    assert "cut off" in _fired(head[:, :, top - 80 // MM :])
    corner = _scan(np.ascontiguousarray(head[HALVES["left"]][:, :, top - 80 // MM :]))
    (sentence,) = (each.sentence for each in check_quality(corner, _mask(corner)) if each.check == "cut off")
    assert " mm on the left side and everything more than " in sentence and " below the top are missing." in sentence


@pytest.mark.parametrize("scale", [0.1, 10], ids=["cm for mm", "a tenth too large"])
def test_a_wrong_voxel_size_shows_in_the_field_of_view(scale):
    assert "field of view" in _fired(_voxels(), np.diag([MM * scale, MM * scale, MM * scale, 1]))


def test_slices_more_than_5_mm_apart_are_told_unless_the_model_was_measured_on_such_scans():
    scan = _scan(np.ascontiguousarray(_voxels()[:, :, ::2]), np.diag([MM, MM, 2 * MM * (1 + 1e-7), 1]))
    # Headers have float32, so that the spacing of a scan on which the model was measured can be a little more.
    for most, fires in ((None, True), (2 * MM - 0.1, True), (2 * MM, False), (2 * MM + 0.1, False)):
        measured = {"spacing_mm": [0.9, most]} if most else {}
        found = {w.check: w.sentence for w in check_quality(scan, _mask(scan), measured=measured)}
        assert ("spacing" in found) == fires
        assert not fires or f"are {2 * MM:.1f} mm apart: lesions smaller than that" in found["spacing"]


def test_the_size_and_place_of_the_result_are_judged():
    scan = _scan(_voxels())
    for fraction, check in ((0, "empty result"), (0.1, "large result")):
        assert [each.check for each in check_quality(scan, _mask(scan, fraction))][:1] == [check]
    mask = _mask(scan, 0)
    mask.voxels[20:27, 20:27, 40] = 1
    for axis in range(3):  # 6 of 55 voxels; with one border less, 5 would be below a tenth
        np.moveaxis(mask.voxels, axis, 0)[[0, -1], 35, 35] = 1
    assert [each.check for each in check_quality(scan, mask)][:1] == ["lesions at the border"]


def test_marks_in_the_neck_are_told_with_their_volume_whatever_the_storage():
    head = _voxels()
    top = np.flatnonzero(find_head(_scan(head)).inside.any(axis=(0, 1)))[-1]
    for below, expected in ((150, []), (190, ["lesions in the neck"])):
        mask = np.zeros(head.shape, np.uint8)
        middle = head.shape[0] // 2
        mask[middle : middle + 5, middle : middle + 5, top - below // MM - 2 : top - below // MM] = 1
        for code in ("RAS", "PIL"):
            scan, marked = (scan_along(code, voxels, np.diag([MM, MM, MM, 1])) for voxels in (head, mask))
            found = check_quality(scan, marked)
            assert [each.check for each in found] == expected
            assert not found or found[0].sentence.startswith("1.4 ml of the lesions lie more than 170 mm below the top")


def test_the_targets_say_how_much_of_a_head_is_plausible():
    scan = _scan(_voxels(extracted=True))
    mask = _mask(scan, 0.06)
    fired = [{each.check for each in check_quality(scan, mask, targets=t)} for t in (Binary(), Regions())]
    assert fired[0] - fired[1] == {"large result"}
    warning, *_ = check_quality(scan, mask, targets=Regions(plausible_share=0.01))
    assert "components take up" in warning.sentence and "more than 1%" in warning.sentence


def test_what_lies_elsewhere_is_not_judged_as_a_head():
    slab = _scan(np.full((40, 50, 1), -500, np.float32) + np.arange(50, dtype=np.float32)[:, None])
    mask = Scan(np.ones((40, 50, 1), np.uint8), slab.header)
    mask.voxels[:5] = 0
    classes = ("liver=1",)
    assert {"field of view", "lesions at the border"} < {
        w.check for w in check_quality(slab, mask, targets=Classes(classes))
    }
    assert check_quality(slab, mask, targets=Classes(classes, in_head=False)) == []
    empty = Scan(0 * mask.voxels, mask.header)
    (warning,) = check_quality(slab, empty, targets=Classes(classes, in_head=False))
    assert warning.check == "empty result"


def test_only_flair_is_asked_to_look_like_flair():
    scan = _scan(_voxels(**OTHERS["T2"]))
    assert [each.check for each in check_quality(scan, _mask(scan))] == ["contrast"]
    assert check_quality(scan, _mask(scan), image="t2") == []


@pytest.mark.parametrize(("shift", "fires"), [(0, False), (0.2, False), (1, True)])
def test_sform_and_qform_that_differ_by_more_than_a_tenth_of_a_voxel_are_told(shift, fires):
    scan = _scan(_voxels())
    other = scan.affine.copy()
    other[0, 3] += shift
    scan.header.set_sform(other, code=2)
    scan.header.set_qform(np.diag([MM, MM, MM, 1]), code=1)
    assert (["sform and qform"] if fires else []) == [each.check for each in check_quality(scan, _mask(scan))]


@pytest.mark.parametrize(("degrees", "fires"), [(0, False), (0.5, False), (2, True), (-20, True)])
def test_sheared_voxels_are_told(degrees, fires):
    scan = _scan(_voxels())
    sheared = scan.affine.copy()
    sheared[1, 2] = MM * np.tan(np.radians(degrees))
    scan.header.set_sform(sheared, code=1)
    found = [each.sentence for each in check_quality(scan, _mask(scan)) if each.check == "sheared voxels"]
    assert bool(found) == fires
    assert not found or f"{abs(degrees):.1f} degrees from perpendicular" in found[0]


def test_a_qform_that_cannot_be_read_is_told():
    scan = _scan(_voxels())
    scan.header.set_sform(np.diag([MM, MM, MM, 1]), code=1)
    scan.header["qform_code"], scan.header["quatern_b"], scan.header["quatern_c"] = 1, 3, 2
    assert [each.check for each in check_quality(scan, _mask(scan))] == ["sform and qform"]


def test_the_checks_do_not_depend_on_the_storage():
    brain = _voxels(extracted=True)
    top = np.flatnonzero(brain.any(axis=(0, 1)))[-1]
    scan = _scan(np.ascontiguousarray(brain[:, :, : top - 45 // MM]))
    mask = _mask(scan)
    expected = check_quality(scan, mask, whole_head=True)
    assert {each.check for each in expected} >= {"cut off", "skull-stripped"}
    for turn in TURNS[7::13]:
        scan_there, mask_there = (_scan(*turned(each.voxels, scan.affine, turn)) for each in (scan, mask))
        assert check_quality(scan_there, mask_there, whole_head=True) == expected


def _cylinder(radius, slices):
    """A head in empty air: a shell of 25 mm around a darker center, on a grid of 2.5 mm."""
    places = np.indices((50, 50, slices)).T - (24.5, 24.5, 0)
    apart = np.linalg.norm(places[..., :2], axis=-1).T * 2.5
    voxels = np.where(apart < radius, np.where(apart < radius - 25, 100, 300), 0)
    return find_head(_scan(voxels.astype(np.float32), SMALL))


@pytest.mark.parametrize(("radius", "grey"), [(40, 100), (22, 300), (0, np.nan)])
def test_the_grey_level_of_tissue_is_that_of_the_center_or_without_one_of_all(radius, grey):
    head = _cylinder(radius, slices=20)
    np.testing.assert_equal(head.tissue, grey)
    assert head.centre.any() == (grey == 100)


def test_a_slab_without_a_vault_does_not_tell_whether_the_skull_was_removed():
    assert _cylinder(40, slices=20).is_extracted is True
    assert _cylinder(40, slices=8).is_extracted is None


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 300, 2), (40, 40, 40)])
@pytest.mark.parametrize("size", [1e-6, 1, 1e6])
def test_no_scan_is_too_odd_to_be_checked(shape, size):
    rng = np.random.default_rng(0)
    for voxels in (rng.normal(size=shape), -1 - rng.random(shape), np.zeros(shape)):
        assert "field of view" in _fired(voxels.astype(np.float32), np.diag([size, size, size, 1]))


@pytest.mark.real
def test_real_flair_scans_look_like_flair_and_the_others_of_a_patient_do_not(real_data):
    data = real_data / "data"
    for path in sorted(data.glob("ms_flair/sub-*/anat/*_FLAIR.nii.gz")):
        scan = read_scan(path)
        (reference,) = (data / "ms_flair/derivatives/manual" / path.name[:10]).rglob("*.nii.gz")
        fired = {each.check for each in check_quality(scan, read_mask(reference, scan), whole_head=True)}
        assert fired - {"cut off"} == {"spacing"}, path
        # Of these three the last slice shows brain from side to side.
        assert ("cut off" in fired) == (path.name[:10] in ("sub-104670", "sub-106639", "sub-107130")), path
    extracted = read_scan(data / "open_ms/patient26/FLAIR.nii.gz")
    mask = read_mask(data / "open_ms/patient26/gold_standard.nii.gz", extracted)
    assert [each.check for each in check_quality(extracted, mask, whole_head=True)] == ["skull-stripped"]
    assert check_quality(extracted, mask, whole_head=False) == []
    for name in ("flair", "t1", "t1ce", "t2"):
        (path,) = data.glob(f"brats/*/*_{name}.nii.gz")
        acquired = read_scan(path)
        for scan in (acquired, _averaged(acquired, 6)):
            fired = {each.check for each in check_quality(scan, _mask(scan))} - {"spacing"}
            assert fired == (set() if name == "flair" else {"contrast"}), (name, scan.spacing)


def _averaged(scan, slices):
    """The scan with the mean of every few axial slices."""
    thick = scan.voxels[:, :, : scan.voxels.shape[2] // slices * slices]
    thick = thick.reshape(*thick.shape[:2], -1, slices).astype(np.float32).mean(axis=3)
    return _scan(thick, scan.affine @ np.diag([1, 1, slices, 1]))
