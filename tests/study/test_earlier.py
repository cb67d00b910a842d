"""Outputs of an earlier run are kept while valid and removed when not, and files of another origin are left alone."""

import json

import nibabel as nib
import numpy as np
import pytest
from msseg import RECIPE, write_model, write_msseg

from planar3d.errors import RunError
from planar3d.files import read_json, write_json
from planar3d.networks.weights_file import Model
from planar3d.scans.bids import derivative_names, sidecar, write_instance_sidecars
from planar3d.scans.outputs import plain_names
from planar3d.study.cohort import segment_all
from planar3d.study.earlier import earlier_record, kept_files, remove_outdated
from planar3d.study.segmented import Request, describe_models

pytestmark = pytest.mark.usefixtures("built_once")
PLAIN = Request(engine="keras")
SHOWN = Request(engine="keras", overlay=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    (found,) = write_msseg(tmp_path_factory.mktemp("msseg"), ("01A",)).rglob("3DFLAIR.nii.gz")
    return found


def _segment(scan, model, out, request):
    (record,) = segment_all([scan], model, out, request, str).records
    return record


def test_the_sidecars_of_outputs_of_a_replaced_mask_are_removed_with_them(tmp_path):
    scan = tmp_path / "sub-1/anat/sub-1_FLAIR.nii.gz"
    outputs = derivative_names(tmp_path, scan, tmp_path / "out")
    before = {**sidecar(tmp_path, scan, ""), "files": {"record": "", "instances": "", "probability": ""}}
    write_json(outputs.record, before)
    write_instance_sidecars(tmp_path, scan, outputs, [])
    notes = outputs.record.with_name("notes.json")
    notes.touch()
    remove_outdated(outputs, before, ())
    assert set(outputs.record.parent.iterdir()) == {outputs.record, notes}


@pytest.mark.parametrize("named", ["a_mask.mgz", "a_mask.mhd"])
def test_a_mask_in_the_format_of_an_earlier_scan_of_the_name_is_removed(tmp_path, named):
    outputs = plain_names("a", tmp_path, own=".nrrd")
    for name in ("a_mask.mgz", "a_mask.mhd", "a_mask.raw", "b.mgz", outputs.mask.name):
        (tmp_path / name).touch()
    for said in (named, "b.mgz", "../b.mgz", outputs.mask.name):
        remove_outdated(outputs, {"files": {"same_format": said}}, ())
    gone = {"a_mask.mgz"} if named.endswith(".mgz") else {"a_mask.mhd", "a_mask.raw"}
    everything = {"a_mask.mgz", "a_mask.mhd", "a_mask.raw", "b.mgz", outputs.mask.name}
    assert {path.name for path in tmp_path.iterdir()} == everything - gone


def test_the_record_of_a_scan_with_the_name_of_an_output_is_kept(tmp_path):
    outputs = plain_names("a", tmp_path)
    other = plain_names("a_probability", tmp_path).record
    other.touch()
    remove_outdated(outputs, {"files": {"probability": ""}}, ())
    assert other.exists()


def test_the_second_file_of_a_mask_in_another_format_is_not_replaced_unasked_and_removed_with_it(tmp_path):
    outputs = plain_names("a", tmp_path, ".nhdr")
    raw = tmp_path / "a_mask.raw"
    raw.touch()  # of the expert's a_mask.mhd
    with pytest.raises(RunError, match=r"a_mask\.raw exists, but no a\.json says that planar3d wrote it"):
        earlier_record(outputs, ["same_format"], False, False)
    remove_outdated(outputs, {"files": {"same_format": ""}}, ())
    assert not raw.exists()


def test_nothing_is_kept_where_one_of_several_models_had_another_recipe(tmp_path):
    outputs = plain_names("a", tmp_path)
    outputs.lesions.touch()
    files, one = {"lesions": outputs.lesions.name}, {"scan": {}, "recipe": {}, "result": {}, "files": {}}
    before, other = (one | {"model": {"members": [{}, {"recipe": name}]}, "files": files} for name in ("a", "b"))
    assert kept_files(outputs, before, before) == files and kept_files(outputs, before, other) == {}


def test_of_several_models_those_of_another_recipe_have_it_in_the_description(model):
    other = RECIPE.changed(threshold=9)
    first, second = describe_models([Model.open(model, recipe) for recipe in (RECIPE, other)])["members"]
    assert "recipe" not in first and second["recipe"] == other.to_json()


def test_files_of_a_mask_whose_recipe_lacks_a_field_of_today_stay(tmp_path):
    outputs = plain_names("a", tmp_path)
    outputs.lesions.touch()
    recipe, one = RECIPE.to_json(), {"scan": {}, "model": {}, "result": {}, "files": {"lesions": outputs.lesions.name}}
    older = {**recipe, "preparation": {k: v for k, v in recipe["preparation"].items() if k != "raw_values"}}
    before, now, other = (one | {"recipe": each} for each in (older, recipe, {**recipe, "preparation": 1}))
    assert kept_files(outputs, before, now) == one["files"] and kept_files(outputs, before, other) == {}


def test_the_probabilities_of_lesions_stay_in_table_and_record_while_their_map_is_kept(scan, model, tmp_path):
    first = _segment(scan, model, tmp_path, Request(engine="keras", probability=True))
    table = (tmp_path / first["files"]["lesions"]).read_text()
    second = _segment(scan, model, tmp_path, SHOWN)
    assert second["lesions"] == first["lesions"] and second["lesions"][0]["mean_probability"] is not None
    assert (tmp_path / second["files"]["lesions"]).read_text() == table and "probability" in second["files"]


def test_a_picture_of_another_scan_with_the_same_mask_is_removed(scan, model, tmp_path):
    """As of a corrected scan without lesions, or with other settings that give the same mask."""
    image, empty = nib.load(scan), Model.open(model, RECIPE.changed(threshold=256))
    for number in (1, 2):
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj) // number, image.affine), tmp_path / "a.nii.gz")
        request = SHOWN if number == 1 else Request(engine="keras", overwrite=True)
        record = _segment(tmp_path / "a.nii.gz", empty, tmp_path / "out", request)
        assert record["result"]["lesions"] == 0 and (tmp_path / "out/a_overlay.png").exists() == (number == 1)
    assert "overlay" not in record["files"]
    _segment(tmp_path / "a.nii.gz", empty, tmp_path / "out", SHOWN)
    changed = Model.open(model, RECIPE.changed(threshold=255.9))
    record = _segment(tmp_path / "a.nii.gz", changed, tmp_path / "out", Request(engine="keras", overwrite=True))
    assert record["result"]["lesions"] == 0 and not (tmp_path / "out/a_overlay.png").exists()


def test_a_foreign_picture_beside_a_finished_mask_is_not_taken_for_its_own(scan, model, tmp_path):
    _segment(scan, model, tmp_path, PLAIN)
    (tmp_path / "3DFLAIR_overlay.png").write_text("mine")
    with pytest.raises(RunError, match=r"overlay\.png exists, but no 3DFLAIR\.json says that planar3d wrote it"):
        _segment(scan, model, tmp_path, SHOWN)


def test_after_a_damaged_record_was_deleted_as_advised_the_scan_is_segmented_again(scan, model, tmp_path):
    request = Request(engine="keras", overlay=True, probability=True)
    record = tmp_path / _segment(scan, model, tmp_path, request)["files"]["record"]
    names = read_json(record)["files"].values()
    record.write_text("{")
    with pytest.raises(RunError, match="delete it with all other outputs of the scan, and run predict again"):
        _segment(scan, model, tmp_path, request)
    for name in names:
        (tmp_path / name).unlink()
    assert list(_segment(scan, model, tmp_path, request)["files"].values()) == list(names)


@pytest.mark.parametrize("name", ["seg-lesions_dseg.json", "seg-lesions_dseg.tsv", "label-lesion_probseg.json"])
def test_a_foreign_sidecar_is_not_replaced_unasked(scan, model, tmp_path, name):
    raw, out = tmp_path / "sub-1/anat/sub-1_FLAIR.nii.gz", tmp_path / "derivatives"
    raw.parent.mkdir(parents=True)
    raw.write_bytes(scan.read_bytes())
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "raw", "BIDSVersion": "1.10.0"}))
    foreign = out / "sub-1/anat" / f"sub-1_{name}"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("{}")
    request = {"engine": "keras", "probability": True, "instances": True}
    with pytest.raises(RunError, match=rf"{name} exists, but no .*_mask\.json says that planar3d wrote it"):
        _segment(tmp_path, model, out, Request(**request))
    assert foreign.read_text() == "{}"
    _segment(tmp_path, model, out, Request(**request, overwrite=True))
    assert foreign.read_text() != "{}"
    foreign.with_name("sub-1_label-lesion_mask.nii.gz").unlink()
    _segment(tmp_path, model, out, Request(**request))  # its own sidecars are no obstacle
