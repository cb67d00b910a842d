"""Preparation follows the scan's geometry, not its storage, and can be taken back."""

import warnings

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations
from scipy import ndimage
from stored_scans import TURNS, turned

from planar3d.errors import RunError, ScanError
from planar3d.files import read_json, write_json
from planar3d.inference.prepared_scan import prepare
from planar3d.recipes import PAPER, RELEASED
from planar3d.scans.preparation.prepared import load_prepared, save_prepared
from planar3d.scans.volume import Scan, read_scan

SMALL = PAPER.changed(size=16)


def _scan(voxels, affine):
    image = nib.Nifti1Image(voxels, affine)
    return Scan(voxels, image.header)


def _anatomy(shape=(9, 12, 10)):
    """A smooth volume without any symmetry."""
    rng = np.random.default_rng(1)
    return (1000 * ndimage.gaussian_filter(rng.random(shape), 1)).astype(np.float32)


LPS = np.diag([-0.9, -1.1, 1.3, 1.0])


def test_on_lps_storage_the_view_is_the_released_rotation_and_flip():
    raw = _anatomy()
    released = np.flip(np.rot90(raw, 3, (2, 1)), 0)
    prepared = prepare(_scan(raw, LPS), PAPER.changed(size=16, spline_order=0))
    low, high = raw.min(), raw.max()
    factors = [16 / n for n in released.shape]
    resampled = ndimage.zoom((65535 * (released - low) / (high - low)).astype(np.float32), factors, order=0)
    low, high = resampled.min(), resampled.max()
    expected = np.floor((65535 * (resampled - low) / (high - low)).astype(np.float32) / 256).astype(np.uint8)
    np.testing.assert_array_equal(prepared.voxels[..., 0], expected)


def test_all_48_storages_of_a_scan_give_one_prepared_volume_and_one_mask_in_space():
    raw = _anatomy()
    reference = prepare(_scan(raw, LPS), SMALL)
    found = reference.voxels[..., 0] > 128
    native = reference.restore(found).voxels
    seen = set()
    for orientation in TURNS:
        stored, affine = turned(raw, LPS, orientation)
        seen.add(nib.aff2axcodes(affine))
        prepared = prepare(_scan(stored, affine), SMALL)
        np.testing.assert_array_equal(prepared.voxels, reference.voxels)
        restored = prepared.restore(found)
        np.testing.assert_array_equal(restored.voxels, orientations.apply_orientation(native, orientation))
        assert restored.affine == pytest.approx(affine, abs=1e-5)
    assert len(seen) == 48


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_matrices_give_scipy_s_cube_to_a_grey_level_in_a_voxel_of_10_000(order):
    scan = _scan(_anatomy((40, 52, 46)), LPS)
    recipe = PAPER.changed(size=64, spline_order=order)
    by_matrices, by_scipy = (
        prepare(scan, recipe.changed(resampling=resampling)).voxels.astype(int) for resampling in ("matrix", "scipy")
    )
    different = by_matrices != by_scipy
    assert np.abs(by_matrices - by_scipy).max() <= (1 if order else 0)
    assert different.mean() < 1e-4


def test_the_released_recipe_is_scipy_s_zoom_and_the_released_arithmetic_bit_by_bit():
    raw = np.round(_anatomy((14, 20, 17)))
    sagittal = np.flip(np.rot90(raw, 3, (2, 1)), 0)
    volume = sagittal
    for zoomed in (False, True):
        if zoomed:
            volume = ndimage.zoom(volume, [32 / n for n in volume.shape], order=2)
        low, high = volume.min(), volume.max()
        volume = (65535 * (volume - low) / (high - low)).astype(np.float32)
    expected = np.floor(volume / 256).astype(np.uint8)
    np.testing.assert_array_equal(prepare(_scan(raw, LPS), RELEASED.changed(size=32)).voxels[..., 0], expected)


def test_a_scan_may_hold_any_type_of_number():
    raw = np.round(_anatomy())
    expected = prepare(_scan(raw, LPS), SMALL).voxels
    for dtype in (np.int16, np.uint16, np.int32, np.float64):
        np.testing.assert_array_equal(prepare(_scan(raw.astype(dtype), LPS), SMALL).voxels, expected)


def test_voxels_changed_in_place_are_checked_as_they_are_now():
    scan = _scan(_anatomy(), LPS)
    prepare(scan, SMALL)
    scan.voxels[0] = np.nan
    with pytest.raises(ScanError, match="NaN or infinity in 120 voxels"):
        prepare(scan, SMALL)


def test_a_notebook_shows_a_prepared_scan_in_a_line():
    assert "\n" not in repr(prepare(_scan(_anatomy(), LPS), SMALL))


def test_a_header_of_another_shape_is_refused():
    scan = _scan(_anatomy(), LPS)
    with pytest.raises(ScanError, match=r"voxels of shape \(7, 12, 10\), but a header for \(9, 12, 10\)"):
        prepare(Scan(scan.voxels[2:], scan.header), SMALL)


def test_the_cube_is_eight_bit_and_uses_the_whole_range():
    voxels = prepare(_scan(_anatomy(), LPS), SMALL).voxels
    assert voxels.dtype == np.uint8 and voxels.shape == (16, 16, 16, 1)
    assert voxels.min() == 0 and voxels.max() == 255


def test_a_mask_comes_back_where_it_was():
    raw = _anatomy((20, 24, 22))
    mask = np.zeros(raw.shape, np.uint8)
    mask[4:11, 6:15, 8:13] = 1
    prepared = prepare(_scan(raw, LPS), PAPER.changed(size=64))
    back = prepared.restore(prepared.align(_scan(mask, LPS))).voxels
    assert back.dtype == np.uint8 and set(np.unique(back)) == {0, 1}
    np.testing.assert_array_equal(back, mask)


def test_probabilities_come_back_linearly_and_within_their_range():
    prepared = prepare(_scan(_anatomy(), LPS), SMALL)
    ramp = np.broadcast_to(np.linspace(0, 1, 16, dtype=np.float32), (16, 16, 16))
    back = prepared.restore(ramp)
    assert back.voxels.dtype == np.float32
    # Columns of the sagittal view run from anterior to posterior, which is the second axis of LPS storage.
    np.testing.assert_allclose(back.voxels[0, :, 0], np.linspace(0, 1, 12), atol=1e-5)


def test_spacing_spans_the_native_field_of_view():
    prepared = prepare(_scan(_anatomy((9, 12, 10)), LPS), SMALL)
    assert prepared.geometry.spacing == pytest.approx((0.9 * 8 / 15, 1.3 * 9 / 15, 1.1 * 11 / 15))


@pytest.mark.parametrize("value", [256, 300, -1, 0.5, np.nan])
def test_labels_that_8_bits_do_not_hold_are_refused_not_cut(value):
    prepared = prepare(_scan(_anatomy(), LPS), SMALL)
    labels = np.zeros((9, 12, 10), np.float32)
    labels[3, 4, 5] = value
    with pytest.raises(ScanError, match="whole numbers from 0 to 255"):
        prepared.align(_scan(labels, LPS))
    if float(value).is_integer():
        with pytest.raises(ScanError, match="whole numbers from 0 to 255"):
            prepared.align(_scan(labels.astype(np.int16), LPS))
        with pytest.raises(ValueError, match="whole numbers from 0 to 255"):
            prepared.restore(np.full((16, 16, 16), value))


def test_labels_scaled_in_a_file_are_aligned_as_those_that_they_are_close_to():
    prepared, mask = prepare(_scan(_anatomy(), LPS), SMALL), _anatomy() > 500
    expected = prepared.align(_scan(mask.astype(np.uint8), LPS))
    assert expected.any()
    for one in (np.float32(0.9999999), np.float32(1.0000001), True):
        np.testing.assert_array_equal(prepared.align(Scan(mask * one, prepared.geometry.header)), expected)


def test_a_mask_on_another_grid_is_refused():
    prepared = prepare(_scan(_anatomy(), LPS), SMALL)
    with pytest.raises(ScanError, match="shape"):
        prepared.align(_scan(np.ones((3, 3, 3), np.uint8), LPS))
    with pytest.raises(ScanError, match="does not match"):
        prepared.align(_scan(np.ones((9, 12, 10), np.uint8), -LPS))


def test_the_released_recipe_rounds_through_float16_and_says_so():
    raw = np.zeros((16, 16, 16), np.float32)
    raw[..., 8:] = 4097
    raw[0, 0, 0] = 60001
    with pytest.warns(UserWarning, match="rounded to float16"):
        released = prepare(_scan(raw, LPS), RELEASED.changed(size=16))
    rounded = _scan(raw.astype(np.float16).astype(np.float32), LPS)
    np.testing.assert_array_equal(released.voxels, prepare(rounded, PAPER.changed(size=16)).voxels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(_scan(raw, LPS), PAPER.changed(size=16))
    raw[0, 0, 0] = 70000
    with pytest.raises(ScanError, match="float16"):
        prepare(_scan(raw, LPS), RELEASED.changed(size=16))


def test_what_is_saved_is_opened_memory_mapped_with_the_header_byte_for_byte(tmp_path, gradient_scan):
    scan = read_scan(gradient_scan[0])
    prepared = prepare(scan, SMALL)
    mask = prepared.align(Scan((scan.voxels > 100).astype(np.uint8), scan.header))
    save_prepared(tmp_path / "case", prepared, mask)
    opened, opened_mask = load_prepared(tmp_path / "case")
    assert isinstance(opened.voxels, np.memmap)
    np.testing.assert_array_equal(opened.voxels, prepared.voxels)
    np.testing.assert_array_equal(opened_mask, mask)
    assert opened.geometry.header.binaryblock == scan.header.binaryblock


@pytest.mark.parametrize("missing", [set(), {"view", "resampled", "prepared", "offset"}])
def test_what_older_versions_saved_without_the_axis_of_the_images_is_opened_with_it(tmp_path, missing):
    prepared = prepare(_scan(_anatomy(), LPS), SMALL)
    save_prepared(tmp_path, prepared, None)
    np.save(tmp_path / "voxels.npy", prepared.voxels[..., 0])
    content = read_json(tmp_path / "geometry.json")
    write_json(tmp_path / "geometry.json", {name: content[name] for name in content if name not in missing})
    opened, _ = load_prepared(tmp_path)
    assert isinstance(opened.voxels, np.memmap) and opened.voxels.dtype == np.uint8
    np.testing.assert_array_equal(opened.voxels, prepared.voxels)
    assert opened.geometry.prepared == prepared.geometry.prepared


@pytest.mark.parametrize(
    "changed",
    [
        {"resampled": [0, 32, 32]},
        {"resampled": [32, 32, 1e12]},
        {"resampled": [32, 32, 10**12]},
        {"offset": [0, 0, -(10**9)]},
        {"offset": ["0", "0", "0"]},
        {"prepared": [1, 2, 3]},
    ],
)
def test_a_grid_that_is_not_that_of_the_voxels_is_refused(tmp_path, changed):
    save_prepared(tmp_path, prepare(_scan(_anatomy(), LPS), SMALL), None)
    write_json(tmp_path / "geometry.json", read_json(tmp_path / "geometry.json") | changed)
    with pytest.raises(RunError, match="is not in the form that planar3d writes"):
        load_prepared(tmp_path)


@pytest.mark.real
def test_a_real_thick_sliced_scan_and_its_mask_survive_the_way_there_and_back(real_data):
    from planar3d.scans.layouts import find_cases
    from planar3d.scans.volume import read_mask

    case = find_cases(real_data / "data/ms_flair").cases[0]
    scan = read_scan(case.images["flair"])
    mask = read_mask(case.labels, scan)
    prepared = prepare(scan, PAPER)
    back = prepared.restore(prepared.align(mask))
    dice = 2 * np.sum(back.voxels & mask.voxels) / (back.voxels.sum() + mask.voxels.sum())
    assert dice > 0.99
    np.testing.assert_array_equal(back.affine, scan.affine)
