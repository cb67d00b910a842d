"""Of two visits each lesion is told by what became of it, wherever the head lay; the movement between them is found."""

import base64
import errno
import io
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from dicom_series import AXIAL, VOXELS, write_series
from matplotlib.image import imread
from msseg import RECIPE
from scan_pages import record_of
from scipy import ndimage
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from planar3d.cli import app
from planar3d.errors import RecipeError, RunError, ScanError
from planar3d.networks.weights_file import save_weights
from planar3d.scans.registration import register
from planar3d.scans.targets import Classes
from planar3d.scans.volume import Scan, read_labels, read_scan
from planar3d.study import visits as visits_module
from planar3d.study.visits import compare_lesions, write_comparison
from planar3d.training.initialization import initial_network
from planar3d.transfer.digests import file_sha256

AFFINE = nib.affines.from_matvec(np.diag([-2.0, 2.0, 3.0]), (110, -110, -90))
SHAPE = (105, 111, 60)
MOVED = np.eye(4)  # of the head, from the first visit to the second, in mm
MOVED[:3, :3] = Rotation.from_euler("xyz", (6, -4, 9), degrees=True).as_matrix()
MOVED[:3, 3] = 7, -5, 4
CORNERS = np.array([[x, y, z, 1] for x in (-75, 75) for y in (-95, 95) for z in (-60, 80)]).T
# Centre and radii in mm at both visits; 0 where there is none.
LESIONS = {
    "new": ((30, 20, 20), 0, 6),
    "enlarging": ((-30, 20, 20), 5, 8),
    "shrinking": ((30, -40, 10), 8, 5),
    "gone": ((-30, -40, 10), 6, 0),
    "stable": ((0, 45, 30), 7, 7),
}


def _visit(which, moved):
    """A head of skull, brain, fluid and texture with its lesions, after a movement, on a grid that stays."""
    world = AFFINE[:3, :3] @ np.indices(SHAPE).reshape(3, -1) + AFFINE[:3, 3:]
    back = np.linalg.inv(moved)
    x, y, z = (back[:3, :3] @ world + back[:3, 3:]).reshape(3, *SHAPE)
    voxels = np.random.default_rng(which).normal(5, 2, SHAPE)
    for (a, b, c), grey in (((78, 98, 86), 150), ((73, 93, 81), 15), ((66, 86, 74), 100)):
        voxels[(x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1] = grey
    inside = voxels == 100
    voxels[inside] += (12 * np.sin(x / 9) + 12 * np.sin(y / 11 + z / 13))[inside]
    for aside in (-10, 10):
        voxels[((x - aside) / 7) ** 2 + (y / 30) ** 2 + ((z - 10) / 14) ** 2 < 1] = 10
    mask = np.zeros(SHAPE, np.uint8)
    for (a, b, c), *radii in LESIONS.values():
        mask[(x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < radii[which] ** 2] = 1
    voxels[mask > 0] = 190
    header = nib.Nifti1Image(mask, AFFINE).header
    return Scan(voxels.astype(np.float32), header), Scan(mask, header)


@pytest.fixture(scope="module")
def visits():
    return _visit(0, np.eye(4)), _visit(1, MOVED)


def test_the_movement_of_a_head_is_found(visits):
    (first, _), (second, _) = visits
    found, alike = register(second, first)
    assert np.linalg.norm(((found - np.linalg.inv(MOVED)) @ CORNERS)[:3], axis=0).max() < 1
    assert alike > 0.9


def test_each_lesion_is_told_by_what_became_of_it(visits):
    (_, first), (_, second) = visits
    changes = compare_lesions(first, second, MOVED)
    assert [each.change for each in changes] == list(LESIONS)
    for each in changes:
        centre, *radii = LESIONS[each.change]
        assert np.linalg.norm(np.subtract(each.place_mm, centre)) < 2
        for volume, radius in zip((each.baseline_ml, each.followup_ml), radii, strict=True):
            assert volume == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.2)
    before, after = (sum(getattr(each, name) for each in changes) for name in ("baseline_ml", "followup_ml"))
    assert before == pytest.approx(first.voxels.sum() * first.voxel_mm3 / 1000)
    assert after == pytest.approx(second.voxels.sum() * second.voxel_mm3 / 1000)


def test_lesions_that_merge_are_one_and_what_was_not_scanned_is_neither_new_nor_gone(visits):
    (_, first), _ = visits
    joined = first.voxels.copy()
    joined[[50], :, [37]] = 1  # a line from front to back, through the stable lesion
    one = compare_lesions(first, Scan(joined, first.header), np.eye(4))
    assert len([each for each in one if len(each.baseline) > 1 or each.followup_ml > each.baseline_ml]) == 1
    away = np.eye(4)
    away[2, 3] = 500
    assert {each.change for each in compare_lesions(first, first, away)} == {"not covered"}
    none = Scan(np.zeros_like(first.voxels), first.header)
    assert {each.change for each in compare_lesions(first, none, np.eye(4))} == {"gone"}
    assert compare_lesions(none, none, np.eye(4)) == []


def test_a_change_of_exactly_a_quarter_is_stable_at_every_voxel_size():
    whole = np.zeros((6, 3, 3), np.uint8)
    whole[1:5, 1, 1] = 1
    part = whole.copy()
    part[1] = 0
    for spacing in np.random.default_rng(0).uniform(2, 6, (20, 3)):
        first, second = (Scan(mask, nib.Nifti1Image(mask, np.diag([*spacing, 1])).header) for mask in (whole, part))
        for pair in ((first, second), (second, first)):
            assert [each.change for each in compare_lesions(*pair, np.eye(4))] == ["stable"]


def test_a_lesion_of_one_thick_voxel_is_that_of_eight_thin_ones():
    thick = np.zeros((3, 3, 3), np.uint8)
    thick[1, 1, 1] = 1
    thin, affine = thick.repeat(2, 0).repeat(2, 1).repeat(2, 2), np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -0.5
    masks = (thick, np.diag([4.0, 4, 4, 1])), (thin, affine)
    first, second = (Scan(mask, nib.Nifti1Image(mask, affine).header) for mask, affine in masks)
    assert [change.change for change in compare_lesions(first, second, np.eye(4))] == ["stable"]


@pytest.mark.parametrize(
    ("volumes", "shown", "change"),
    [
        ((0.01, 0.02), 1, "stable"),  # a difference of 0.01 ml
        ((0.01, 0.021), 1, "enlarging"),
        ((1, 0.76), 1, "stable"),
        ((1, 0.74), 1, "shrinking"),
        ((1, 0), 0.5, "gone"),
        ((1, 0), 0.49, "not covered"),
        ((0, 1), 0.5, "new"),
    ],
)
def test_the_limits_of_a_change_are_those_that_the_page_names(volumes, shown, change):
    first, second = ((1,) * (volume > 0) for volume in volumes)
    assert visits_module._kind(first, second, volumes, shown) == change


@pytest.mark.parametrize("cropped", [0, 1])
def test_a_lesion_that_the_other_visit_shows_in_part_is_compared_in_that_part(cropped):
    mask = np.zeros((6, 12, 9), np.uint8)
    mask[2:4, 2:10, 4] = 1
    whole = nib.Nifti1Image(mask, AFFINE)
    pair = [whole, whole]
    pair[cropped] = whole.slicer[:, 5:]
    (change,) = compare_lesions(*(Scan(np.asarray(each.dataobj), each.header) for each in pair), np.eye(4))
    volumes = change.baseline_ml, change.followup_ml
    assert change.change == "stable" and volumes[cropped] == pytest.approx(volumes[1 - cropped] * 5 / 8)


def test_the_command_writes_what_changed_and_a_page_of_both(visits, tmp_path):
    pytest.importorskip("matplotlib")
    paths = [scan.save(tmp_path / f"{n}.nii.gz") for n, scan in enumerate(v for visit in visits for v in visit)]
    words = ["compare", paths[0], paths[2], "--masks", paths[1], paths[3], "--out", tmp_path / "out", "--json"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out/comparison.json").read_text())
    assert content["counts"] == dict.fromkeys(LESIONS, 1) | {"not covered": 0}
    page = (tmp_path / "out/comparison.html").read_text()
    assert page.count("data:image/png;base64,") == 4 and "http" not in page.replace("http-equiv", "")
    assert "by more than 25 % of the larger volume and by more than 0.01 ml" in page
    assert content["warnings"] == [] and 'class="warning"' not in page
    assert content["baseline"]["mask"] == str(paths[1])
    assert content["baseline"]["volume_ml"] == pytest.approx(sum(each["baseline_ml"] for each in content["lesions"]))
    other = ["compare", paths[2], paths[0], "--masks", paths[3], paths[1], "--out", tmp_path / "out"]
    refused = CliRunner().invoke(app, [str(word) for word in other])
    assert isinstance(refused.exception, RunError)
    assert f"comparison.json compares {paths[0]} with {paths[2]}. Use another" in str(refused.exception)
    assert json.loads((tmp_path / "out/comparison.json").read_text()) == content
    again = [*words[:4], paths[1], paths[1], *words[6:]]  # other masks of the same visits
    assert CliRunner().invoke(app, [str(word) for word in again]).exit_code == 0


def test_the_models_of_the_masks_are_named_as_their_records_say(visits, tmp_path, monkeypatch):
    monkeypatch.setattr(visits_module, "register", lambda *scans: (np.eye(4), 1.0))
    pairs = [[scan.save(tmp_path / f"{n}{k}.nii.gz") for k, scan in enumerate(visits[0])] for n in "ab"]
    pairs = [(scan, mask.rename(tmp_path / f"{scan.name[0]}_mask.nii.gz")) for scan, mask in pairs]
    for beside, (_, mask) in zip(("a.json", "b_mask.json"), pairs, strict=True):
        record = record_of(read_labels(mask))
        record["files"]["mask"], record["result"]["mask_sha256"] = mask.name, file_sha256(mask)
        (tmp_path / beside).write_text(json.dumps(record))

    def models():
        both = ((read_scan(scan), read_labels(mask)) for scan, mask in pairs)
        content = write_comparison(*both, tmp_path / "out")
        told.append(content["warnings"])
        return [content[visit]["model"] for visit in ("baseline", "followup")]

    told = []
    named = {field: record["model"][field] for field in ("name", "sha256")}
    assert models() == [named, named]
    record["model"]["sha256"] = "0" * 64
    (tmp_path / "b_mask.json").write_text(json.dumps(record))
    models()
    Scan(0 * visits[0][1].voxels, visits[0][1].header).save(pairs[0][1])
    (tmp_path / "b_mask.json").write_text("{")
    pages = (tmp_path / "out/comparison.html").read_text()
    assert models() == [None, None]
    assert [[warning["check"] for warning in warnings] for warnings in told] == [
        ["same scan"],
        ["model", "same scan"],
        ["same scan"],
    ]
    digests = f"{named['name']} (SHA-256 {named['sha256'][:8]}…) and {named['name']} (SHA-256 00000000…)"
    assert digests in told[1][0]["sentence"] and digests in pages
    assert f"mask of the follow-up: {named['name']}" in pages


def test_the_models_that_segment_both_visits_are_named(visits, tmp_path, monkeypatch):
    monkeypatch.setattr(visits_module, "register", lambda *scans: (np.eye(4), 1.0))
    path = visits[0][0].save(tmp_path / "scan.nii.gz")
    model = save_weights(initial_network(RECIPE), tmp_path / "one.weights.h5", RECIPE)
    words = ["compare", path, path, "--model", f"{model},{model}", "--out", tmp_path / "out", "--json"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out/comparison.json").read_text())
    assert content["baseline"]["model"]["name"] == f"{RECIPE.name} + {RECIPE.name}"
    assert content["baseline"]["model"] == content["followup"]["model"]


def test_each_picture_shows_its_lesion_also_one_between_the_slices_of_the_other_visit(visits, tmp_path, monkeypatch):
    scan, small = visits[0][0], Scan(np.zeros_like(visits[0][1].voxels), visits[0][1].header)
    small.voxels[60:62, 60, 34] = small.voxels[70, 50, 35] = small.voxels[52, 70, 0] = 1
    header = nib.Nifti1Image(scan.voxels, AFFINE @ np.diag([1, 1, 3, 1])).header
    thick = [Scan(volume[..., ::3].copy(), header) for volume in (scan.voxels, 0 * small.voxels)]
    thick[1].voxels[30:41, 30:41, 10] = 1
    monkeypatch.setattr(visits_module, "register", lambda *scans: (np.eye(4), 1.0))
    content = write_comparison(tuple(thick), (scan, small), tmp_path)
    assert content["counts"]["new"] + content["counts"]["not covered"] == 3 and content["counts"]["gone"] == 1
    pictures = re.findall('base64,([^"]*)"', (tmp_path / "comparison.html").read_text())
    for change, data in zip(content["lesions"], pictures, strict=True):
        picture = imread(io.BytesIO(base64.b64decode(data)))
        middle = picture.shape[0] // 2
        for panel, volume in enumerate((change["baseline_ml"], change["followup_ml"])):
            near = picture[:, panel * picture.shape[0] :][:, : picture.shape[0] - 6]
            near = near[middle - 60 : middle + 60, middle - 60 : middle + 60]
            assert (near[..., 0] - near[..., 2] > 0.2).any() == (volume > 0), (change["change"], panel)
    told = "The first 1 of 4 changed lesions in the table are shown."
    assert told not in (tmp_path / "comparison.html").read_text()
    monkeypatch.setattr(visits_module, "_PICTURED", 1)
    write_comparison(tuple(thick), (scan, small), tmp_path / "few")
    assert told in (tmp_path / "few/comparison.html").read_text()


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
def test_a_picture_lies_in_the_slices_with_front_above_and_right_at_its_right(monkeypatch, order):
    monkeypatch.setattr(visits_module, "_picture", lambda visits, plane: plane)
    affine = AFFINE[:, [*order, 3]]  # of axial, transposed, and sagittal slices
    scan = Scan(np.zeros((5, 6, 7)), nib.Nifti1Image(np.zeros((5, 6, 7)), affine).header)
    change = visits_module.Change("new", (1,), (), 1.0, 0.0, (1.0, 2.0, 3.0))
    (plane,) = visits_module._pictures([(scan, scan, np.eye(4))], [change])
    np.testing.assert_allclose(plane[:, 18, 18], (1, 2, 3, 1))
    np.testing.assert_allclose(plane[:, -1, 18] - plane[:, 0, 18], (0, 72, 0, 0), atol=1e-9)
    np.testing.assert_allclose(plane[:, 18, -1] - plane[:, 18, 0], (72, 0, 0, 0), atol=1e-9)


def test_two_patients_are_compared_with_a_warning(visits, tmp_path):
    pytest.importorskip("matplotlib")
    coarse = [scan.voxels[::2, ::2, ::2] for scan in visits[0]]
    header = nib.Nifti1Image(coarse[1], AFFINE @ np.diag([2, 2, 2, 1])).header
    folds = 640 * ndimage.gaussian_filter(np.random.default_rng(4).normal(size=coarse[0].shape), 1.5)
    another = coarse[0] + np.where(coarse[0] > 60, folds, 0).astype(np.float32)
    first, other, mask = (Scan(voxels, header) for voxels in (coarse[0], another, coarse[1]))
    paths = [scan.save(tmp_path / f"{n}.nii.gz") for n, scan in enumerate((first, other, mask))]
    words = ["compare", *paths[:2], "--masks", paths[2], paths[2], "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out/comparison.json").read_text())
    assert 0.5 < content["correlation"] < 0.75
    (warning,) = content["warnings"]
    found = f"{content['correlation']:.2f}"
    assert warning["check"] == "correlation" and f"registration is {found}, and 0.8 or more" in warning["sentence"]
    assert warning["sentence"] in result.output and f"correlation  {found}" in result.output
    assert f'<p class="warning">{warning["sentence"]}</p>' in (tmp_path / "out/comparison.html").read_text()


def test_a_correlation_is_judged_as_it_is_printed(visits):
    (scan, _), (later, _) = visits
    assert [*visits_module._doubts(scan, later, 0.796)] == []
    (doubt,) = visits_module._doubts(scan, later, 0.794)
    assert "is 0.79, and 0.8 or more" in doubt.sentence


@pytest.mark.parametrize(
    ("patients", "dates", "told"),
    [
        (("1", "1"), ("20200101", "20210101"), []),
        (("1", "2"), ("20210101", "20200101"), ["patient", "order"]),
        (("1", None), (None, "20200101"), []),
    ],
)
def test_headers_of_another_patient_or_in_the_wrong_order_are_told(tmp_path, patients, dates, told):
    pytest.importorskip("pydicom", reason="needs the extra dicom")
    scans = []
    for name, patient, date in zip("ab", patients, dates, strict=True):
        write_series(tmp_path / name, VOXELS + np.int16(len(scans)), AXIAL, PatientID=patient, StudyDate=date)
        scans.append(read_scan(tmp_path / name))
    assert [doubt.check for doubt in visits_module._doubts(*scans, 0.9)] == told


def test_dicom_series_are_found_and_read_as_predict_does_whatever_their_files_are_called(visits, tmp_path):
    pytest.importorskip("pydicom", reason="needs the extra dicom")
    pytest.importorskip("dcm2niix")
    order = np.random.default_rng(0).permutation(SHAPE[2]) + 1  # of the files' names
    for name, (scan, mask) in zip("ab", visits, strict=True):
        voxels = scan.voxels.round().astype(np.int16)
        write_series(tmp_path / name, voxels, AFFINE, order=order.tolist(), name="IM{instance}", PatientID=name)
        mask.save(tmp_path / f"{name}.nii.gz")
    words = [str(tmp_path / name) for name in ("a", "b", "a.nii.gz", "b.nii.gz", "out")]
    given = ["compare", *words[:2], "--masks", *words[2:4], "--out", words[4], "--json"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.exception
    content = json.loads((tmp_path / "out/comparison.json").read_text())
    assert content["counts"] == dict.fromkeys(LESIONS, 1) | {"not covered": 0}
    assert [warning["check"] for warning in content["warnings"]] == ["patient"]
    write_series(tmp_path / "b", voxels, AFFINE, number=6, name="other{instance}")
    with pytest.raises(ScanError, match=r"b has 2 FLAIR scans; name one, e\.g\. "):
        CliRunner().invoke(app, given, catch_exceptions=False)


def test_a_scan_given_for_both_visits_is_told(visits, tmp_path):
    pytest.importorskip("matplotlib")
    (scan, mask), _ = visits
    (warning,) = write_comparison((scan, mask), (replace(scan), mask), tmp_path)["warnings"]
    assert warning["check"] == "same scan" and "Both visits are the same scan" in warning["sentence"]


def test_scans_without_geometry_are_compared_on_request(visits, tmp_path):
    pytest.importorskip("matplotlib")
    paths = [tmp_path / f"{n}.nii.gz" for n in range(4)]
    for path, scan in zip(paths, (scan for visit in visits for scan in visit), strict=True):
        header = scan.header.copy()
        header["sform_code"] = header["qform_code"] = 0
        nib.save(nib.Nifti1Image(scan.voxels, None, header), path)
    words = ["compare", paths[0], paths[2], "--masks", paths[1], paths[3], "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert isinstance(result.exception, ScanError) and "add --assume-affine" in str(result.exception)
    result = CliRunner().invoke(app, [*map(str, words), "--assume-affine", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["counts"] == dict.fromkeys(LESIONS, 1) | {"not covered": 0}


def test_a_model_of_several_targets_is_refused(visits, tmp_path):
    path = visits[0][0].save(tmp_path / "scan.nii.gz")
    recipe = replace(RECIPE, targets=Classes(classes=("lesion=1", "ventricles=2")))
    model = save_weights(initial_network(recipe), tmp_path / "two.weights.h5", recipe)
    result = CliRunner().invoke(
        app, [str(w) for w in ("compare", path, path, "--model", model, "--out", tmp_path / "out")]
    )
    assert isinstance(result.exception, RecipeError) and "the model has several" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_another_object_is_no_later_visit(visits):
    (first, _), _ = visits
    noise = np.random.default_rng(3).normal(100, 30, SHAPE).astype(np.float32)
    with pytest.raises(ScanError, match=r"could not be registered to .*more than 0.5"):
        register(first, Scan(noise, first.header))


@pytest.mark.parametrize("air", [300, -4000])
def test_two_patients_are_told_apart_whatever_the_value_of_air(visits, air):
    """Air far above 0 was compared too, and two patients correlated as one does; far below, nothing was compared."""
    first = visits[0][0].voxels[::4, ::4, ::2]
    header = nib.Nifti1Image(first, AFFINE @ np.diag([4, 4, 2, 1])).header
    folds = 900 * ndimage.gaussian_filter(np.random.default_rng(4).normal(size=first.shape), 1)
    other = np.maximum(first + np.where(first > 60, folds, 0), 0).astype(np.float32)
    with pytest.raises(ScanError, match=r"could not be registered to .*more than 0\.5"):
        register(Scan(first + air, header), Scan(other + air, header))


def test_scans_without_a_head_end_in_a_sentence():
    empty = _scan(np.full((12, 12, 6), 3))
    spot = _scan(np.eye(12)[:, :, None] * np.eye(12)[0][None, None, :6])
    with pytest.raises(ScanError, match="the same value everywhere"):
        register(empty, spot)
    with pytest.raises(ScanError, match="the same value everywhere"):
        register(spot, empty)
    flat = Scan(spot.voxels, spot.header.copy())
    flat.header.set_sform([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]], code=1)  # axes in one plane
    with pytest.raises(ScanError, match=r"could not be registered to .*correlation is 0\.00"):
        register(spot, flat)
    single = _scan(np.arange(8).reshape(2, 2, 2))  # less than the distance of compared points
    with pytest.raises(ScanError, match=r"could not be registered to .*correlation is 0\.00"):
        register(single, single)


def test_a_slab_that_shows_less_than_half_of_a_head_is_judged_by_the_whole_head(visits):
    (first, _), _ = visits
    coarse = nib.Nifti1Image(first.voxels, AFFINE).slicer[::4, ::4, ::2]
    head, slab = (Scan(np.asarray(each.dataobj), each.header) for each in (coarse, coarse.slicer[:, :, 14:19]))
    with pytest.raises(ScanError, match=r"could not be registered to .*more than 0\.5"):
        register(head, slab)


def test_points_beyond_the_later_scan_do_not_count(visits):
    (first, _), _ = visits
    upper = nib.affines.from_matvec(np.eye(3), (0, 0, 22))
    half = nib.Nifti1Image(first.voxels[:, :, 22:], AFFINE @ upper)
    found, alike = register(first, Scan(half.dataobj, half.header))
    assert alike > 0.97, (alike, found)


def _scan(voxels):
    return Scan(voxels.astype(np.float32), nib.Nifti1Image(np.zeros(voxels.shape, np.uint8), np.eye(4)).header)


@pytest.mark.real
@pytest.mark.parametrize("beyond", ["nearest", "constant"])  # constant: black, as in a resampled scan
def test_the_movement_of_a_real_scan_is_found(real_data, beyond):
    scan = read_scan(real_data / "data/ms_flair/sub-107130/anat/sub-107130_FLAIR.nii.gz")
    index = np.linalg.inv(scan.affine) @ np.linalg.inv(MOVED) @ scan.affine
    moved = ndimage.affine_transform(scan.voxels, index[:3, :3], index[:3, 3], order=1, mode=beyond)
    found, alike = register(scan, Scan(moved, scan.header))
    assert np.linalg.norm(((found - MOVED) @ CORNERS)[:3], axis=0).max() < 1
    assert alike > 0.8


def test_a_comparison_that_does_not_fit_on_the_disk_leaves_the_old_one_whole(visits, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    header = nib.Nifti1Image(visits[0][1].voxels[::2, ::2, ::2], AFFINE @ np.diag([2, 2, 2, 1])).header
    first, other = ([Scan(scan.voxels[::2, ::2, ::2], header) for scan in visit] for visit in visits)
    monkeypatch.setattr(visits_module, "register", lambda *scans: (np.eye(4), 1.0))
    (tmp_path / ".writing-killed00-comparison.html").mkdir()  # by a process that was killed
    write_comparison(first, other, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(visits_module, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        write_comparison(other, first, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before and len(before) == 2


def test_of_two_processes_that_compare_other_scans_in_one_folder_one_is_refused(visits, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    header = nib.Nifti1Image(visits[0][1].voxels[::2, ::2, ::2], AFFINE @ np.diag([2, 2, 2, 1])).header
    first, *later = (
        [Scan(scan.voxels[::2, ::2, ::2], header, tmp_path / f"{name}.nii.gz") for scan in visits[0]] for name in "abc"
    )
    both = threading.Barrier(2)  # both find no comparison there before either writes its own
    monkeypatch.setattr(visits_module, "register", lambda *scans: (np.eye(4), float(both.wait(60) >= 0)))
    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(write_comparison, first, visit, tmp_path / "out").exception for visit in later]
    (written,) = [visit for visit, end in zip(later, ends, strict=True) if end() is None]
    (refused,) = filter(None, (end() for end in ends))
    assert isinstance(refused, RunError) and f"compares {first[0].path} with {written[0].path}" in str(refused)
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["followup"]["scan"] == str(written[0].path)
