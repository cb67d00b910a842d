"""nnU-Net's raw folders are found as their `dataset.json` describes them, and what it says wrongly is explained."""

import json
import warnings

import pytest
from stored_scans import touch

from planar3d.errors import DatasetError, Planar3DWarning
from planar3d.scans.case import LabelSet
from planar3d.scans.inputs import find_inputs
from planar3d.scans.layouts import find_cases

SECOND = {
    "channel_names": {"0": "FLAIR", "1": "T1ce"},
    "labels": {"background": 0, "edema": 1, "core": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
FIRST = {
    "modality": {"0": "FLAIR", "1": "T1ce"},
    "labels": {"0": "background", "1": "edema", "2": "core"},
    "training": [],
}


def _write(folder, about=SECOND, ending=".nii.gz", **changed):
    for case in ("a_01", "b"):
        touch(folder, *(f"imagesTr/{case}_000{n}{ending}" for n in (0, 1)), f"labelsTr/{case}{ending}")
    touch(folder, f"imagesTs/c_0000{ending}", f"imagesTs/c_0001{ending}", "imagesTr/._b_0000.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(about | changed))
    return folder


@pytest.mark.parametrize(("about", "ending"), [(SECOND, ".nii.gz"), (FIRST, ".nii.gz"), (SECOND, ".nii")])
def test_both_versions_mean_the_same(tmp_path, about, ending):
    changed = {"file_ending": ending} if about is SECOND else {}
    dataset = find_cases(_write(tmp_path, about, ending, **changed))
    assert dataset.layout == "nnU-Net raw"
    assert [(case.id, list(case.images), case.group) for case in dataset.cases] == [
        ("a_01", ["flair", "t1ce"], "all"),
        ("b", ["flair", "t1ce"], "all"),
    ]
    assert dataset.cases[0].images["t1ce"] == tmp_path / f"imagesTr/a_01_0001{ending}"
    assert dataset.cases[0].labels == tmp_path / f"labelsTr/a_01{ending}"
    assert dataset.labels == LabelSet({"edema": (1,), "core": (2,)})


def test_regions_come_with_their_order(tmp_path):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    _write(tmp_path, labels=labels, regions_class_order=[1, 2, 3])
    assert find_cases(tmp_path).labels == LabelSet(
        {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}, order=(1, 2, 3)
    )


def test_the_label_of_voxels_to_ignore_is_no_target(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    _write(tmp_path, labels=labels, regions_class_order=[1, 2])
    assert find_cases(tmp_path).labels == LabelSet({"whole": (1, 2), "core": (2,)}, order=(1, 2))


def test_for_prediction_cases_need_no_labels_and_a_folder_of_images_may_be_given_alone(tmp_path):
    _write(tmp_path)
    names = ["t1ce", "flair"]
    assert [item.name for item in find_inputs([tmp_path], names)] == ["a_01", "b", "c"]
    (item,) = find_inputs([tmp_path / "imagesTs"], names)
    assert item.name == "c" and list(item.images) == names
    assert [item.path.name for item in find_inputs([tmp_path / "imagesTs"])] == ["c_0000.nii.gz"]  # FLAIR by its number
    with pytest.raises(DatasetError, match=r"1 of 1 scan in .* has no mask: c\. .*labelsTs/c.nii.gz"):
        find_cases(tmp_path / "imagesTs")


def test_the_section_dataset_names_files_anywhere_in_the_folder(tmp_path):
    listed = {"x": {"images": ["./imagesTr/b_0000.nii.gz", "imagesTr/b_0001.nii.gz"], "label": "labelsTr/a_01.nii.gz"}}
    (case,) = find_cases(_write(tmp_path, dataset=listed)).cases
    assert case.id == "x" and case.images["flair"] == tmp_path / "imagesTr/b_0000.nii.gz"
    assert case.labels == tmp_path / "labelsTr/a_01.nii.gz"


def test_several_channels_of_one_name_get_their_numbers(tmp_path):
    _write(tmp_path, channel_names={"1": "noNorm", "0": "noNorm"})
    assert list(find_cases(tmp_path).cases[0].images) == ["nonorm_0", "nonorm_1"]


def test_an_image_or_a_label_map_that_is_missing_is_named(tmp_path):
    _write(tmp_path)
    (tmp_path / "imagesTr/b_0001.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 cases .* b\. b has no image t1ce; it has flair\."):
        find_cases(tmp_path).require(["flair", "t1ce"])
    (tmp_path / "labelsTr/a_01.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 scans .* has no mask: a_01"):
        find_cases(tmp_path)


def test_the_capitals_of_an_ending_make_no_difference(tmp_path):
    _write(tmp_path)
    for name in ("imagesTr/b_0000", "imagesTr/b_0001", "labelsTr/b"):
        (tmp_path / f"{name}.nii.gz").rename(tmp_path / f"{name}.NII.GZ")
    _, case = find_cases(tmp_path).cases
    assert [path.suffixes for path in (*case.images.values(), case.labels)] == [[".NII", ".GZ"]] * 3


def test_another_number_of_cases_than_described_is_told(tmp_path):
    with pytest.warns(Planar3DWarning, match=r"says numTraining 3, but \S*imagesTr has 2 cases\. Check"):
        assert len(find_cases(_write(tmp_path, numTraining=3)).cases) == 2
    with warnings.catch_warnings(action="error"):
        find_cases(_write(tmp_path, FIRST))  # which does not say it


@pytest.mark.parametrize("named", ["b.nii.gz", "b_000.nii.gz", "b_0000.nii", "B_0000.nii.gz"])
@pytest.mark.parametrize("given", ["", "imagesTr"])
def test_a_label_map_whose_image_has_another_name_is_not_left_out_of_training(tmp_path, named, given):
    _write(tmp_path, numTraining=3 if named.startswith("B") else 2)
    (tmp_path / "imagesTr/b_0001.nii.gz").unlink()
    (tmp_path / "imagesTr/b_0000.nii.gz").rename(tmp_path / "imagesTr" / named)
    if named.startswith("B"):
        touch(tmp_path, "labelsTr/B.nii.gz")
    with pytest.raises(DatasetError, match=r"1 of [23] scans .* has no scan: b\. Expected .*imagesTr/b_0000.nii.gz"):
        find_cases(tmp_path / given)
    assert "a_01" in [item.name for item in find_inputs([tmp_path / given], ["flair"])]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"channel_names": ["FLAIR"]}, "channel_names is not an object"),
        ({"channel_names": {"0": "FLAIR", "2": "T1"}}, "the channels are 0, 2; they must be numbered from 0"),
        ({"channel_names": {"first": "FLAIR"}}, r"channel_names has \['first'\], where whole numbers are needed"),
        ({"channel_names": {"0": "FLAIR"}}, "a_01 has the image a_01_0001.nii.gz, but .* names 1 channel: flair"),
        ({"file_ending": ".png"}, r"file_ending is \.png; \.nii\.gz and \.nii are supported"),
        ({"file_ending": ".nii"}, r"has no images named imagesTr/<ID>_0000\.nii,"),
        ({"labels": [1, 2]}, "labels is not an object"),
        ({"labels": {"background": 0, "edema": -1}}, "labels has -1, where whole numbers are needed"),
        ({"labels": {"background": 0, "edema": 1.5}}, "labels has 1.5"),
        ({"labels": {"background": 0, "edema": "1" * 5000}}, "labels has '1+', where whole numbers are needed"),
        ({"labels": {"²": "edema"}}, "labels has 'edema', where whole numbers are needed"),
        ({"labels": {"1" * 5000: "edema"}}, "labels has 'edema', where whole numbers are needed"),
        ({"labels": {"whole": [1, 2], "core": 2}}, "the regions whole, core, so regions_class_order needs 2 values"),
        ({"dataset": {"x": {"images": "a.nii"}}}, "x in the section “dataset” needs a name"),
        ({"dataset": {"x": {"images": [], "label": "labelsTr/b.nii.gz"}}}, "needs a name valid for files, paths"),
        ({"dataset": {"../x": {"images": [], "label": ""}}}, r"\.\./x in the section “dataset” needs a name"),
        (
            {"dataset": {"x": {"images": ["../other/a.nii.gz"], "label": "labelsTr/b.nii.gz"}}},
            r"names \.\./other/a.nii.gz, which is outside the data set",
        ),
        (
            {"dataset": {"x": {"images": ["imagesTr/b_0000.nii.gz"], "label": "/etc/passwd"}}},
            "names /etc/passwd, which is outside the data set",
        ),
    ],
)
def test_a_description_that_cannot_be_followed_is_explained(tmp_path, changed, sentence):
    _write(tmp_path, **changed)
    with pytest.raises(DatasetError, match=sentence):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "dataset.json cannot be read"),
        ("[]", "is not a JSON object"),
        ('{"labels": {"lesion": 1, "lesion": 2}}', r"cannot be read \('lesion' occurs twice in one object\)"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path, text, sentence):
    _write(tmp_path)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DatasetError, match=sentence):
        find_cases(tmp_path)
