"""Of all masks among derivatives the one is taken that is of lesions, of that scan, and not of this package."""

import json
import shutil

import pytest

from planar3d.errors import DatasetError
from planar3d.scans.bids import write_dataset_description
from planar3d.scans.layouts import bids
from planar3d.scans.layouts.bids import _name as name_of, find_lesion_masks

OTHERS = (
    *("desc-brain_mask", "label-GM_mask", "desc-deface_mask", "mask", "label-WM_dseg", "dseg", "label-left_mask"),
    *("label-lesion_probseg", "label-GM_desc-lesion_mask", "desc-nonlesion_mask", "desc-lesionfilled_mask"),
    *("space-MNI152NLin2009cAsym_label-lesion_mask", "space-T1w_label-lesion_mask", "T1w_label-lesion_mask"),
    *("acq-3D_label-lesion_mask", "ses-1_label-lesion_mask", "mod-T1w_label-lesion_mask"),
)


def _touch(dataset, *names):
    for name in names:
        path = dataset / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return dataset / names[0]


def _find(dataset, *scans):
    """The masks of scans, each relative to the derivatives."""
    found, _ = find_lesion_masks(dataset, [_touch(dataset, f"{scan}_FLAIR.nii.gz") for scan in scans])
    return [mask.relative_to(dataset / "derivatives").as_posix() for mask in found.values()]


@pytest.mark.parametrize(
    "name",
    [
        *("label-lesion_mask", "label-Lesions_mask", "label-L_mask", "label-WMH_mask", "label-wml_dseg", "label-L_roi"),
        *("desc-lesion_mask", "label-L_desc-T1lesion_mask", "space-orig_label-lesion_mask", "FLAIR_label-lesion_seg"),
        *("rater-2_label-lesion_mask", "label-lesion_MASK", "res-1_den-2_hemi-L_desc-manual_label-lesion_mask"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".NII.GZ"])
def test_a_lesion_mask_is_told_by_its_name(tmp_path, name, suffix):
    _touch(tmp_path, *(f"derivatives/p/sub-01/anat/sub-01_{other}.nii.gz" for other in OTHERS))
    _touch(tmp_path, f"derivatives/m/sub-01/anat/sub-01_{name}{suffix}")
    assert _find(tmp_path, "sub-01/anat/sub-01") == [f"m/sub-01/anat/sub-01_{name}{suffix}"]


@pytest.mark.parametrize("name", OTHERS)
def test_other_masks_are_none_but_are_named(tmp_path, name):
    _touch(tmp_path, f"derivatives/p/sub-01/anat/sub-01_{name}.nii.gz")
    with pytest.raises(
        DatasetError, match=rf"1 of 1 scan .* no lesion mask: sub-01\. Near .*/sub-01_{name}\.nii\.gz \("
    ):
        _find(tmp_path, "sub-01/anat/sub-01")


@pytest.mark.parametrize("sidecar", ["sub-01/anat/sub-01_desc-x_mask.json", "sub-01/sub-01_mask.json", "mask.json"])
def test_a_lesion_mask_is_told_by_its_sidecar_and_those_above(tmp_path, sidecar):
    _touch(tmp_path, "derivatives/m/sub-01/anat/sub-01_desc-x_mask.nii.gz")
    _touch(tmp_path, "derivatives/other/sub-01/anat/sub-01_desc-x_mask.nii.gz")
    (tmp_path / "derivatives/m" / sidecar).write_text('{"Type": "Lesion"}')
    assert _find(tmp_path, "sub-01/anat/sub-01") == ["m/sub-01/anat/sub-01_desc-x_mask.nii.gz"]


def test_the_nearest_sidecar_counts_and_those_of_other_files_do_not(tmp_path):
    anat = _touch(tmp_path, "derivatives/m/sub-01/anat/sub-01_desc-x_mask.nii.gz").parent
    (tmp_path / "derivatives/m/mask.json").write_text('{"Type": "Lesion"}')
    (anat / "sub-01_desc-x_mask.json").write_text('{"Type": "Brain"}')
    (anat / "sub-01_desc-y_mask.json").write_text('{"Type": "Lesion"}')
    with pytest.raises(DatasetError, match="neither its name nor a sidecar mentions lesions"):
        _find(tmp_path, "sub-01/anat/sub-01")


def test_masks_in_one_folder_are_not_each_compared_with_the_sidecars_of_all_subjects(tmp_path, monkeypatch):
    calls = []
    for count in (20, 40):
        parsed, subjects = list[object](), [f"sub-{number:02d}" for number in range(count)]
        for subject in subjects:
            mask = _touch(tmp_path, f"derivatives/{count}/{subject}_desc-x_mask.nii.gz")
            mask.with_name(f"{subject}_mask.json").write_text('{"Type": "Lesion"}')
        with monkeypatch.context() as patch:
            patch.setattr(bids, "_name", lambda *given, parsed=parsed: parsed.append(given) or name_of(*given))
            found = _find(tmp_path, *(f"{subject}/anat/{subject}" for subject in subjects))
        assert len(found) == count
        shutil.rmtree(tmp_path / "derivatives")
        calls.append(len(parsed))
    assert calls[1] == 2 * calls[0]


@pytest.mark.parametrize(
    "place",
    [
        *("manual/sub-01/ses-1/anat/", "sub-01/ses-1/anat/", "group/lesions/sub-01/ses-1/anat/", "manual/sub-01/"),
        *("manual/", "nested/derivatives/manual/sub-01/ses-1/anat/"),
    ],
)
def test_a_mask_may_lie_anywhere_among_derivatives(tmp_path, place):
    mask = f"{place}sub-01_ses-1_label-lesion_mask.nii.gz"
    _touch(tmp_path, f"derivatives/{mask}", "derivatives/m/sourcedata/sub-01_ses-1_label-lesion_mask.nii.gz")
    assert _find(tmp_path, "sub-01/ses-1/anat/sub-01_ses-1") == [mask]


def test_subject_and_session_may_be_those_of_the_folders(tmp_path):
    mask = "manual/sub-01/ses-1/label-lesion_mask.nii.gz"
    _touch(tmp_path, f"derivatives/{mask}")
    assert _find(tmp_path, "sub-01/ses-1/anat/sub-01_ses-1") == [mask]


def test_a_mask_has_all_entities_of_its_scan_and_no_more(tmp_path):
    stems = [f"sub-1_{rest}" for rest in ("run-1", "run-10", "acq-3D_run-1", "ses-1_run-1", "ses-10_run-1")]
    stems += ["sub-1", "sub-10", "sub-10_ce-gd", "sub-10_rec-norm_echo-2_part-mag"]
    masks = [f"derivatives/m/{stem}_label-lesion_mask.nii" for stem in stems]
    _touch(tmp_path, *masks)
    assert _find(tmp_path, *stems) == [mask.removeprefix("derivatives/") for mask in masks]


def test_indices_are_numbers(tmp_path):
    _touch(tmp_path, "derivatives/sub-01_run-01_label-lesion_mask.nii")
    assert _find(tmp_path, "sub-01_run-1") == ["sub-01_run-01_label-lesion_mask.nii"]


def test_what_no_two_scans_differ_in_may_be_left_out_of_a_mask_s_name(tmp_path):
    _touch(tmp_path, "derivatives/sub-01_label-lesion_mask.nii")
    assert _find(tmp_path, "sub-01_ses-1_acq-3D") == ["sub-01_label-lesion_mask.nii"]
    with pytest.raises(DatasetError, match=r"2 of 2 scans .*sub-01_label-lesion_mask.nii \(it fits several scans\)"):
        _find(tmp_path, "sub-01_acq-3D", "sub-01_acq-2D")


def test_a_scan_does_not_get_the_mask_of_another(tmp_path):
    _touch(tmp_path, "derivatives/sub-01_acq-3D_label-lesion_mask.nii")
    with pytest.raises(DatasetError, match=r"1 of 2 scans .*: sub-01\. .*sub-01_label-lesion_mask.nii.gz"):
        _find(tmp_path, "sub-01", "sub-01_acq-3D")


@pytest.mark.parametrize("within", ["derivatives/planar3d", "derivatives/x/derivatives/mine", "derivatives"])
def test_masks_that_this_package_made_are_not_learned_from(tmp_path, within):
    write_dataset_description(tmp_path / within, tmp_path)
    made = f"{within}/sub-01/anat/sub-01_label-lesion_mask.nii.gz"
    _touch(tmp_path, made)
    with pytest.raises(DatasetError, match=r"planar3d made it"):
        _find(tmp_path, "sub-01/anat/sub-01")
    if within != "derivatives":
        _touch(tmp_path, "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz")
        assert _find(tmp_path, "sub-01/anat/sub-01") == ["manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz"]


def test_a_mask_of_this_package_is_known_by_its_record_in_any_folder(tmp_path):
    mask = _touch(tmp_path, "derivatives/copied/sub-01/anat/sub-01_label-lesion_mask.nii.gz")
    record = mask.with_name("sub-01_label-lesion_mask.json")
    record.write_text(json.dumps({"versions": {"planar3d": "0.1.0"}}))
    with pytest.raises(DatasetError, match=r"planar3d made it"):
        _find(tmp_path, "sub-01/anat/sub-01")
    record.write_text(json.dumps({"versions": {"another": "0.1.0"}}))
    assert _find(tmp_path, "sub-01/anat/sub-01") == ["copied/sub-01/anat/sub-01_label-lesion_mask.nii.gz"]


def test_several_masks_are_named_with_what_to_do(tmp_path):
    _touch(tmp_path, *(f"derivatives/rater{i}/sub-01/anat/sub-01_label-lesion_mask.nii.gz" for i in (1, 2)))
    sentence = r"has 2 lesion masks \(derivatives/rater1/.*, derivatives/rater2/.*\).*CSV table"
    with pytest.raises(DatasetError, match=sentence):
        _find(tmp_path, "sub-01/anat/sub-01")


def test_without_derivatives_it_is_said_what_is_expected(tmp_path):
    with pytest.raises(
        DatasetError, match=r"2 of 2 .*: sub-01, sub-02\. Expected e\.g\. derivatives/manual/sub-01/anat/"
    ):
        _find(tmp_path, "sub-01/anat/sub-01", "sub-02/anat/sub-02")
