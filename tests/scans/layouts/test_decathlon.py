"""The Medical Segmentation Decathlon: channels of a series by name, labels and paths as dataset.json has them."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from challenge_road import recipe_of, segmented

from planar3d.errors import DatasetError, ScanError
from planar3d.evaluation.challenges import score_targets
from planar3d.recipes import RECIPES
from planar3d.scans import phantom
from planar3d.scans.case import read_images
from planar3d.scans.inputs import find_inputs, read_input_images
from planar3d.scans.layouts import find_cases
from planar3d.scans.volume import read_labels, read_scan

SHAPE = (5, 6, 4)
LABELS = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
MODALITY = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}


def _write(folder, modality=MODALITY, numbers=(1, 2), tests=(7,), **changes):
    rng = np.random.default_rng(0)
    (folder / "imagesTr").mkdir(parents=True)
    for place in ("labelsTr", "imagesTs"):
        (folder / place).mkdir()
    shape = (*SHAPE, len(modality)) if len(modality) > 1 else SHAPE
    affine = np.diag([-2.0, -1, 3, 1])
    for place, ids in (("imagesTr", numbers), ("imagesTs", tests)):
        for n in ids:
            image = nib.Nifti1Image(rng.integers(0, 900, shape).astype(np.int16), affine)
            image.header.set_slope_inter(0.5, 3)
            nib.save(image, folder / place / f"BRATS_{n:03d}.nii.gz")
            (folder / place / f"._BRATS_{n:03d}.nii.gz").write_bytes(b"\0\5\x16\7")
    for n in numbers:
        labels = rng.integers(0, 4, SHAPE).astype(np.uint8)
        nib.save(nib.Nifti1Image(labels, affine), folder / f"labelsTr/BRATS_{n:03d}.nii.gz")
    names = [f"BRATS_{n:03d}" for n in numbers]
    rows = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    rows += [{"image": f"./imagesTr/._{name}.nii.gz", "label": f"./labelsTr/._{name}.nii.gz"} for name in names]
    about = {"name": "BRATS", "tensorImageSize": "4D", "modality": modality, "labels": LABELS, "numTraining": len(rows)}
    about |= {"training": rows, "test": [f"./imagesTs/BRATS_{n:03d}.nii.gz" for n in tests]}
    (folder / "dataset.json").write_text(json.dumps(about | changes))
    return folder


def test_a_series_is_split_into_images_by_the_names_of_its_channels(tmp_path):
    dataset = find_cases(_write(tmp_path))
    assert dataset.layout == "Medical Segmentation Decathlon"
    assert [case.id for case in dataset.cases] == ["BRATS_001", "BRATS_002"]
    # 1 is edema here, unlike in BraTS.
    assert dataset.labels.values == {"edema": (1,), "non-enhancing tumor": (2,), "enhancing tumour": (3,)}
    case = dataset.cases[0]
    assert list(case.images) == ["flair", "t1w", "t1gd", "t2w"]
    whole = nib.load(tmp_path / "imagesTr/BRATS_001.nii.gz")
    scans = read_images(case.images)
    for number, scan in enumerate(scans.values()):
        np.testing.assert_allclose(scan.voxels, whole.get_fdata()[..., number], rtol=1e-6)
        np.testing.assert_array_equal(scan.affine, whole.affine)
        assert scan.header.get_data_shape() == SHAPE
    assert read_labels(case.labels, scans["t1gd"]).voxels.max() == 3


def test_test_cases_are_found_to_be_segmented_and_not_to_be_trained_on(tmp_path):
    found = find_inputs([_write(tmp_path)], ["t1gd", "flair"])
    assert [item.name for item in found] == ["BRATS_001", "BRATS_002", "BRATS_007"]
    scans = read_input_images(found[-1])
    assert list(scans) == ["t1gd", "flair"] and not np.array_equal(scans["t1gd"].voxels, scans["flair"].voxels)
    assert found[-1].files == (tmp_path / "imagesTs/BRATS_007.nii.gz",)


def test_a_task_of_one_modality_has_plain_volumes(tmp_path):
    case = find_cases(_write(tmp_path, {"0": "CT"})).cases[0]
    assert case.images == {"ct": tmp_path / "imagesTr/BRATS_001.nii.gz"}
    assert read_images(case.images)["ct"].voxels.shape == SHAPE


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training": "all"}, "training is not a list"),
        ({"training": [{"image": "../a.nii.gz"}]}, "outside the data set"),
        ({"training": [{"label": "a"}]}, "is needed"),
        ({"modality": {"1": "CT"}}, "numbered from 0"),
        ({"training": [{"image": "./imagesTr/X.nii.gz", "label": "./labelsTr/X.nii.gz"}]}, "no scan: X"),
    ],
)
def test_what_dataset_json_cannot_mean_is_refused(tmp_path, changes, sentence):
    with pytest.raises(DatasetError, match=sentence):
        find_cases(_write(tmp_path, **changes))


def test_one_volume_of_a_series_is_named_by_its_number(tmp_path, write_nifti):
    path = write_nifti(np.random.default_rng(0).random((4, 5, 6, 2), np.float32), "a.nii")
    assert read_scan(f"{path}[1]").path.name == "a.nii[1]"
    with pytest.raises(ScanError, match="no volume 2;"):
        read_scan(f"{path}[2]")
    with pytest.raises(ScanError, match=r"b.nii does not exist"):
        read_scan(tmp_path / "b.nii[0]")


def test_the_phantom_goes_the_whole_road(tmp_path, monkeypatch):
    pytest.importorskip("nilearn")
    monkeypatch.setattr(phantom, "CENTERS", phantom.CENTERS[:1])
    phantom.write_phantom(tmp_path, scans_per_center=1, reduction=10, layout="decathlon")
    dataset = find_cases(tmp_path)
    assert [case.id for case in dataset.cases] == ["BRATS_011"]
    classes = ("edema=1", "core=2", "enhancing=3")
    recipe = recipe_of(("flair", "t1gd"), classes, regions=("WT=1+2+3", "TC=2+3", "ET=3"))
    scans, labels = segmented(dataset.cases[0], recipe)
    reference = recipe.targets.read(dataset.cases[0].label_map, scans["flair"])
    assert (reference.voxels == 1).sum() > (reference.voxels == 2).sum()  # edema is the largest part
    ratio = {}  # of enhancing tumour to edema, by contrast
    for name, image in read_images(dataset.cases[0].images).items():
        edema, enhancing = (np.median(image.voxels[reference.voxels == n]) for n in (1, 3))
        ratio[name] = enhancing / edema
    assert max(ratio, key=ratio.get) == "t1gd" and ratio["t1gd"] > 1.5
    scores = score_targets(recipe.targets, reference.voxels, labels.voxels, labels.affine)
    assert set(scores) == {"WT", "TC", "ET"} and 0 <= scores["WT"]["dice"] <= 1


def test_a_recipe_for_brats_takes_it_by_the_settings_in_the_docs(tmp_path):
    page = (Path(__file__).parents[3] / "docs/how-to/cross-validate.md").read_text(encoding="utf-8")
    command = page.partition("--data Task01_BrainTumour")[2].partition("```")[0]
    recipe = RECIPES["messaoudi2023-ds"].with_settings(re.findall(r"--set (\S+)", command))
    phantom.write_phantom(tmp_path, scans_per_center=1, reduction=8, layout="decathlon")
    case = find_cases(tmp_path).cases[0]
    labels = read_labels(case.labels).voxels
    marked = recipe.targets.encode(labels)
    expected = np.stack([np.isin(labels, values) for values in ((1, 2, 3), (2, 3), (3,))], axis=-1)
    np.testing.assert_array_equal(marked, expected)
    assert expected.any(axis=(0, 1, 2)).all()
    np.testing.assert_array_equal(recipe.targets.assign(marked), labels)
    assert [case.images[name].name[-3:] for name in recipe.preparation.images] == ["[1]", "[2]", "[3]", "[0]"]
