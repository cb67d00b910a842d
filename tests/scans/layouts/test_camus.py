"""CAMUS in both releases: four images a patient, of a single slice each, with their pixels' own spacing."""

import re
import shutil
import sys

import numpy as np
import pytest
from challenge_road import recipe_of, segmented

from planar3d.errors import DatasetError, FoldsError, Planar3DError, ScanError
from planar3d.scans.case import read_images
from planar3d.scans.inputs import find_inputs, read_input_images
from planar3d.scans.layouts import find_cases
from planar3d.scans.layouts.camus import read_info
from planar3d.scans.phantom import phantom_groups, write_phantom
from planar3d.scans.volume import read_labels, read_scan
from planar3d.study.reproduce import folds_for

SimpleITK = pytest.importorskip("SimpleITK")
KINDS = ("2CH_ED", "2CH_ES", "4CH_ED", "4CH_ES")
PATIENTS = ("patient0101", "patient0701", "patient0801")
CLASSES = ("cavity=1", "myocardium=2", "atrium=3")


@pytest.fixture(scope="module")
def mhd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("camus")
    (folder / "training" / ".writing-killed00").mkdir(parents=True)  # by a process that was killed
    (folder / "phantom.json").write_text('{"layout": "camus", "seed": 0, "reduction": 8, "scans_per_center": 1}')
    write_phantom(folder, scans_per_center=1, reduction=8, layout="camus")
    assert not list(folder.rglob(".*"))
    return folder


@pytest.fixture
def nifti(mhd, tmp_path):
    """The release in NIfTI: arrays of two dimensions, and lists of the patients of each part."""
    for path in mhd.rglob("*.mhd"):
        image = SimpleITK.ReadImage(str(path))[:, :, 0]
        place = tmp_path / "CAMUS_public/database_nifti" / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        SimpleITK.WriteImage(image, str(place / f"{path.stem}.nii.gz"))
        if path.stem.endswith("ED"):
            sequence = SimpleITK.JoinSeries([image] * 3)
            SimpleITK.WriteImage(sequence, str(place / path.name.replace("ED.mhd", "half_sequence.nii.gz")))
    for view, quality in (("2CH", "Medium"), ("4CH", "Good")):
        about = f"ED: 1\nES: 18\nNbFrame: 18\nSex: F\nAge: 56\nImageQuality: {quality}\nEF: 54\nFrameRate: 43.4\n"
        (tmp_path / f"CAMUS_public/database_nifti/patient0701/Info_{view}.cfg").write_text(about)
    (tmp_path / "CAMUS_public/database_split").mkdir()
    for part, patient in zip(("training", "validation", "testing"), PATIENTS, strict=True):
        # As a Windows editor saves it again.
        (tmp_path / f"CAMUS_public/database_split/subgroup_{part}.txt").write_bytes(f"\ufeff{patient}\r\n".encode())
    return tmp_path / "CAMUS_public"


def test_views_and_instants_have_one_name_however_files_are_written(nifti):
    named = [case.id for case in find_cases(nifti).cases]
    for path in list(nifti.rglob("*_gt.nii.gz")):
        for each in (path, path.with_name(path.name.replace("_gt", ""))):
            each.rename(each.with_name(each.name.lower()))
    assert [case.id for case in find_cases(nifti).cases] == named


def test_the_file_of_pixels_is_named_if_it_is_the_one_that_lacks(mhd, tmp_path):
    raw = tmp_path / "data/training/patient0701/patient0701_2CH_ES_gt.raw"
    shutil.copytree(mhd, tmp_path / "data")
    raw.unlink()
    with pytest.raises(DatasetError, match=rf"has no mask: patient0701_2CH_ES\. .* {re.escape(str(raw))}; add it"):
        find_cases(tmp_path / "data")


def test_both_releases_have_the_same_cases_and_images(mhd, nifti):
    one, other = find_cases(mhd), find_cases(nifti)
    assert one.layout == other.layout == "CAMUS" and one.labels.values["atrium"] == (3,)
    names = [f"{patient}_{kind}" for patient in PATIENTS for kind in KINDS]
    assert [case.id for case in one.cases] == [case.id for case in other.cases] == names
    assert {case.patient: case.group for case in one.cases} == phantom_groups("camus", 1)
    assert [case.group for case in other.cases[::4]] == ["all", "Medium", "all"]  # the poorer view's, if it is told
    for first, second in zip(one.cases[:4], other.cases[:4], strict=True):
        scans = [read_images(case.images, flat=True)["image"] for case in (first, second)]
        assert scans[0].voxels.shape == scans[1].voxels.shape == (75, 138, 1)  # columns, rows, one slice
        np.testing.assert_array_equal(scans[0].voxels, scans[1].voxels)
        np.testing.assert_allclose(scans[0].spacing[:2], (0.308 * 8, 0.154 * 1100 / 138), rtol=1e-6)
        np.testing.assert_allclose(scans[0].affine[:2, :2], scans[1].affine[:2, :2], rtol=1e-6)
        labels = [read_labels(c.labels, scan) for c, scan in zip((first, second), scans, strict=True)]
        np.testing.assert_array_equal(labels[0].voxels, labels[1].voxels)
        assert np.unique(labels[0].voxels).tolist() == [0, 1, 2, 3]
        file = SimpleITK.ReadImage(str(first.images["image"]))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(file)[0].T, scans[0].voxels[..., 0])


def test_the_lists_of_the_release_are_its_own_split_and_folds_keep_patients_together(mhd, nifti):
    (fold,) = folds_for(find_cases(nifti), "official")
    parts = [(fold.train, PATIENTS[0]), (fold.validation, PATIENTS[1]), (fold.test, PATIENTS[2])]
    assert all(part == tuple(f"{patient}_{kind}" for kind in KINDS) for part, patient in parts)
    assert find_cases(nifti / "database_nifti").split == fold
    with pytest.raises(FoldsError, match="no official split"):
        folds_for(find_cases(mhd), "official")
    for fold in folds_for(find_cases(mhd), None):
        assert [len(part) for part in (fold.train, fold.validation, fold.test)] == [4, 4, 4]


def test_info_files_say_what_is_known_of_a_patient(mhd, tmp_path):
    info = read_info(mhd / "training/patient0101/Info_2CH.cfg")
    assert (info["ED"], info["ES"], info["ImageQuality"]) == ("1", "12", "Good")
    assert float(info["LVef"]) == pytest.approx(100 * (1 - float(info["LVesv"]) / float(info["LVedv"])), abs=0.1)
    assert read_info(mhd / "absent.cfg") == {}
    (tmp_path / "marked.cfg").write_bytes("\ufeffED: 1\r\nES: 12\r\n".encode())
    assert read_info(tmp_path / "marked.cfg") == {"ED": "1", "ES": "12"}


def test_patients_of_the_test_set_are_segmented_and_not_trained_on(mhd, tmp_path):
    (tmp_path / "training").symlink_to(mhd / "training")
    place = tmp_path / "testing/patient0001"
    place.mkdir(parents=True)
    for name in ("mhd", "raw"):
        content = (mhd / f"training/patient0101/patient0101_2CH_ED.{name}").read_bytes()
        (place / f"patient0001_2CH_ED.{name}").write_bytes(content.replace(b"patient0101", b"patient0001"))
    assert len(find_cases(tmp_path).cases) == 12
    found = find_inputs([place], ("image",))
    assert [item.name for item in found] == ["patient0001_2CH_ED"]
    assert [file.name[-3:] for file in found[0].files] == ["mhd", "raw"]
    assert read_input_images(found[0], flat=True)["image"].voxels.shape == (75, 138, 1)


def test_a_single_slice_is_refused_where_a_volume_is_needed(mhd, nifti):
    for path in (next(mhd.rglob("*_ED.mhd")), next(nifti.rglob("*_ED.nii.gz"))):
        with pytest.raises(ScanError, match=r"is 2-D \(75, 138\)|a single slice"):
            read_scan(path)


def test_damaged_files_end_in_a_sentence(mhd, tmp_path, monkeypatch):
    source = mhd / "training/patient0101/patient0101_2CH_ED.mhd"
    header, raw = source.read_text(), source.with_suffix(".raw").read_bytes()
    path = tmp_path / "a.mhd"

    def refused(content, sentence):
        path.write_text(content)
        with pytest.raises(ScanError, match=sentence):
            read_scan(path, flat=True)

    (tmp_path / source.with_suffix(".raw").name).write_bytes(raw[:100])
    refused(header, "cannot be read")
    (tmp_path / source.with_suffix(".raw").name).unlink()
    refused(header, "cannot be read")
    refused(
        header.replace("ElementDataFile = ", "ElementDataFile = ../"),
        r"names \.\./patient.* in the same folder is needed",
    )
    large = header.replace("DimSize = 75", "DimSize = 750000000")
    refused(large, "of 1 components; .* of at most 134,217,728 voxels is needed")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(Planar3DError, match=r"need SimpleITK, .*'planar3d\[itk\]'"):
        read_scan(source, flat=True)


def test_the_phantom_goes_the_whole_road(mhd, tmp_path):
    recipe = recipe_of(("image",), CLASSES, shape=(1, 32, 32))
    case = find_cases(mhd).cases[0]
    scans, labels = segmented(case, recipe)
    assert labels.voxels.shape == (75, 138, 1)
    again = read_scan(labels.save(tmp_path / "mask.nii.gz"), flat=True)
    np.testing.assert_array_equal(again.voxels, labels.voxels)
    assert recipe.targets.read(case.label_map, scans["image"]).voxels.any()
