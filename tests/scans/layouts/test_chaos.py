"""CHAOS: DICOM series in the order of their files' names, and PNG masks with the values of the challenge."""

import sys

import numpy as np
import pytest
from challenge_road import recipe_of, segmented
from dicom_series import AXIAL, OBLIQUE, VOXELS, change, write_enhanced, write_series
from nibabel.affines import apply_affine, from_matvec

from planar3d.errors import Planar3DError, ScanError
from planar3d.scans.case import read_images
from planar3d.scans.inputs import find_inputs
from planar3d.scans.layouts import find_cases
from planar3d.scans.phantom import phantom_groups, write_phantom
from planar3d.scans.volume import read_labels, read_scan
from planar3d.study.reproduce import folds_for

Image = pytest.importorskip("PIL.Image")
pydicom = pytest.importorskip("pydicom")
ORGANS = ("liver=63", "right-kidney=126", "left-kidney=189", "spleen=252")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chaos")
    write_phantom(folder, scans_per_center=2, reduction=8, layout="chaos")
    return folder


def _masks(folder, values):
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(values.shape[2]):
        Image.fromarray(np.ascontiguousarray(values[:, :, k].T)).save(folder / f"liver_GT_{k:03d}.png")
    return folder


def test_series_are_cases_and_those_of_a_person_stay_together(data):
    dataset = find_cases(data)
    assert dataset.layout == "CHAOS" and dataset.labels.values["spleen"] == (252,)
    found = {case.id: (case.patient, case.group) for case in dataset.cases}
    assert list(found) == ["CT_011", "CT_012"] + [
        f"MR_{n}_{name}"
        for n in ("071", "072", "081", "082")
        for name in ("T1DUAL_InPhase", "T1DUAL_OutPhase", "T2SPIR")
    ]
    assert {f"{group}_{name}": group for name, group in phantom_groups("chaos", 2).items()} == dict(found.values())
    assert found["CT_011"] == ("CT_011", "CT") and found["MR_071_T2SPIR"] == ("MR_071", "MR")
    by_id = dataset.by_id()
    assert by_id["MR_071_T1DUAL_InPhase"].labels == by_id["MR_071_T1DUAL_OutPhase"].labels
    for fold in folds_for(dataset, "2"):
        people = [{by_id[name].patient for name in part} for part in (fold.train, fold.validation, fold.test)]
        assert not (people[0] & people[2] or people[0] & people[1] or people[1] & people[2])
    assert [case.id for case in find_cases(data / "Train_Sets/CT").cases] == ["CT_011", "CT_012"]


def test_voxels_lie_where_each_file_says_in_hounsfield_units(data):
    folder = data / "Train_Sets/CT/011/DICOM_anon"
    scan = read_scan(folder)
    files = sorted(folder.iterdir())
    assert scan.voxels.shape[2] == len(files) and len({pydicom.dcmread(f).SeriesInstanceUID for f in files}) > 1
    for k, file in enumerate(files):
        image = pydicom.dcmread(file)
        np.testing.assert_array_equal(scan.voxels[:, :, k].T, image.pixel_array.astype(float) - 1024)
        row, column = 5, 9
        along, down = np.reshape(image.ImageOrientationPatient, (2, 3))
        place = np.array(image.ImagePositionPatient, float)
        place += column * image.PixelSpacing[1] * along + row * image.PixelSpacing[0] * down
        np.testing.assert_allclose((scan.affine @ [column, row, k, 1])[:3], place * [-1, -1, 1], atol=1e-3)
    labels = read_labels(folder.with_name("Ground"), scan)
    assert np.unique(labels.voxels).tolist() == [0, 63]  # 255 in the files: anything but 0 is liver in CT
    assert 90 < scan.voxels[labels.voxels == 63].mean() < 130
    assert scan.limits[0] == -1024


def test_organs_of_the_phantom_lie_in_their_side_of_the_files(data):
    """Right, anterior, superior: of liver, right and left kidney, and spleen."""
    case = find_cases(data).by_id()["MR_071_T2SPIR"]
    scan = read_scan(case.images[next(iter(case.images))])
    labels = read_labels(case.labels, scan)
    places = [apply_affine(scan.affine, np.argwhere(labels.voxels == n)).mean(axis=0) for n in (63, 126, 189, 252)]
    right, anterior, superior = np.transpose(places)
    assert (np.sign(right) == [1, 1, -1, -1]).all()
    assert max(anterior[1:3]) < min(anterior[[0, 3]]) and max(superior[1:3]) < min(superior[[0, 3]])


@pytest.mark.parametrize("affine", [AXIAL, OBLIQUE])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_order_of_names_holds_whichever_way_slices_run(tmp_path, affine, reverse):
    slices = VOXELS.shape[2]
    order = list(range(slices, 0, -1)) if reverse else None
    write_series(tmp_path / "DICOM_anon", VOXELS, affine, order=order)
    masks = np.zeros(VOXELS.shape, np.uint8)
    for k, value in enumerate((56, 63, 70, 111, 135, 176, 200, 241, 255)):
        masks[k, 3, k] = value
    _masks(tmp_path / "Ground", masks)
    scan = read_scan(tmp_path / "DICOM_anon")
    stored = VOXELS[:, :, ::-1] if reverse else VOXELS
    np.testing.assert_array_equal(scan.voxels, stored)
    k = slices - 1 if reverse else 0
    np.testing.assert_allclose(scan.affine @ [4, 7, k, 1], affine @ [4, 7, 0, 1], atol=1e-3)
    labels = read_labels(tmp_path / "Ground", scan)  # masks go with images by their place in the order of names
    found = [int(labels.voxels[k, 3, k]) for k in range(slices)]
    assert found == [63, 63, 63, 126, 126, 189, 189, 252, 252] and np.count_nonzero(labels.voxels) == slices
    np.testing.assert_array_equal(read_labels(tmp_path / "Ground").affine, scan.affine)


def test_names_are_in_the_order_of_their_numbers_with_or_without_leading_zeros(tmp_path):
    files, numbers = write_series(tmp_path / "DICOM_anon", VOXELS, AXIAL), range(5, 5 + VOXELS.shape[2])
    masks = np.zeros(VOXELS.shape, np.uint8)
    masks[4, 7] = (63, 63, 63, 126, 126, 126, 189, 189, 252)
    for number, file in zip(numbers, sorted(_masks(tmp_path / "Ground", masks).iterdir()), strict=True):
        file.rename(file.with_name(f"{number}.png"))  # as text, 10.png is before 5.png
    assert read_labels(tmp_path / "Ground").voxels[4, 7].tolist() == masks[4, 7].tolist()
    for number, file in zip(numbers, files, strict=True):
        file.rename(file.with_name(f"{number}.dcm"))
    np.testing.assert_array_equal(read_scan(tmp_path / "DICOM_anon").voxels, VOXELS)


@pytest.mark.parametrize(("kind", "given"), [("SS", -2000), ("US", 63536)])
def test_padding_of_an_mr_series_is_air(tmp_path, kind, given):
    voxels = np.abs(VOXELS)
    voxels[:3] = -2000
    files = write_series(tmp_path / "a", voxels, AXIAL)
    change(files, lambda k, dataset: dataset.add_new("PixelPaddingValue", kind, given))
    scan = read_scan(tmp_path / "a")
    assert scan.limits == (0, voxels.max()) and np.count_nonzero(scan.voxels) == np.count_nonzero(voxels > 0)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [("0.5", "-7"), ("", ""), ("0", None)])
def test_grey_levels_are_rescaled_as_each_file_says(tmp_path, shared, slope, intercept):
    for k in range(VOXELS.shape[2]):
        place = AXIAL @ from_matvec(np.eye(3), (0, 0, k))
        file = write_enhanced(tmp_path / f"enhanced/{k}.dcm", VOXELS[:, :, k : k + 1], place)

        def rescale(_, dataset, k=k):
            values = pydicom.Dataset()
            values.RescaleSlope, values.RescaleIntercept = slope and str(float(slope) * (k + 1)), intercept
            groups = dataset.SharedFunctionalGroupsSequence if shared else dataset.PerFrameFunctionalGroupsSequence
            groups[0].PixelValueTransformationSequence = [values]

        change([file], rescale)
    steps = np.arange(1, VOXELS.shape[2] + 1)
    expected = VOXELS * 0.5 * steps - 7 if slope == "0.5" else VOXELS
    np.testing.assert_array_equal(read_scan(tmp_path / "enhanced").voxels, expected)
    files = write_series(tmp_path / "classic", VOXELS, AXIAL, RescaleSlope=slope, RescaleIntercept=intercept)
    change(files, lambda k, dataset: slope and setattr(dataset, "RescaleSlope", float(slope) * (k + 1)))
    np.testing.assert_array_equal(read_scan(tmp_path / "classic").voxels, expected)


def test_a_file_with_several_slices_is_refused(tmp_path):
    write_enhanced(tmp_path / "a b/1.dcm", VOXELS[:, :, ::-1], AXIAL)
    with pytest.raises(ScanError, match=r"several slices, .*1\.dcm; .* dcm2niix -z y '\S*/a b', look at"):
        read_scan(tmp_path / "a b")


def test_pixels_that_cannot_be_decoded_are_refused(tmp_path):
    def garble(k, dataset):
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.RLELossless
        dataset.PixelData = pydicom.encaps.encapsulate([bytes(8)])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True

    change(write_series(tmp_path, VOXELS, AXIAL), garble)
    with pytest.raises(ScanError, match=r"0001\.dcm is damaged or cannot be read \(.*RLE.*\)\. .* decompress it"):
        read_scan(tmp_path)


def test_names_in_no_order_of_the_slices_are_refused(tmp_path):
    write_series(tmp_path / "DICOM_anon", VOXELS, AXIAL, order=[1, 2, 4, 3, 5, 6, 7, 8, 9])
    with pytest.raises(ScanError, match="file names whose order is not the order of its slices"):
        read_scan(tmp_path / "DICOM_anon")


def test_masks_that_do_not_fit_are_refused(tmp_path):
    write_series(tmp_path / "DICOM_anon", VOXELS, AXIAL)
    ground = _masks(tmp_path / "Ground", np.full(VOXELS.shape, 100, np.uint8))
    with pytest.raises(ScanError, match=r"liver_GT_000.png has the value 100; expected: 0 and liver 56–70"):
        read_labels(ground)
    _masks(ground, np.full(VOXELS.shape, 1000, np.uint16))  # 255, the spleen, if it were cut off
    with pytest.raises(ScanError, match=r"liver_GT_000.png has the value 1000; expected: 0"):
        read_labels(ground)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(ground / "liver_GT_000.png")
    with pytest.raises(ScanError, match=r"has \(4, 4\) rows and columns, but its image has \(24, 20\)"):
        read_labels(ground)
    (ground / "liver_GT_000.png").write_bytes(b"no picture")
    with pytest.raises(ScanError, match="is damaged or cannot be read"):
        read_labels(ground)
    (ground / "liver_GT_000.png").unlink()
    with pytest.raises(ScanError, match=r"has 8 masks, but .*DICOM_anon has 9 images"):
        read_labels(ground)
    (tmp_path / "DICOM_anon").rename(tmp_path / "elsewhere")
    with pytest.raises(ScanError, match="has no DICOM files"):
        read_labels(ground)


def test_a_missing_package_is_named_with_its_extra(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(Planar3DError, match=r"CHAOS and CAMUS need PIL, .*'planar3d\[challenges\]'"):
        read_labels(data / "Train_Sets/MR/071/T2SPIR/Ground")


def test_test_sets_are_found_to_be_segmented_alone(data, tmp_path):
    write_series(tmp_path / "Test_Sets/MR/2/T2SPIR/DICOM_anon", VOXELS, AXIAL)
    (tmp_path / "Train_Sets").symlink_to(data / "Train_Sets")
    assert "MR_2_T2SPIR" not in find_cases(tmp_path).by_id()
    found = {item.name: item for item in find_inputs([tmp_path], ("image",))}
    assert len(found) == 15 and len(found["MR_2_T2SPIR"].files) == 9


def test_the_phantom_goes_the_whole_road(data):
    recipe = recipe_of(("image",), ORGANS)
    for case in find_cases(data).cases[1:3]:
        scans, _ = segmented(case, recipe)
        reference = recipe.targets.read(case.label_map, read_images(case.images)["image"])
        assert reference.voxels.shape == scans["image"].voxels.shape and reference.voxels.any()
