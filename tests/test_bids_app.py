"""The BIDS App: the command line that BIDS Apps have, what it writes, and its descriptor."""

import json
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from msseg import write_model

import planar3d
from planar3d.commands import bids_app
from planar3d.errors import DatasetError, Planar3DError, RunError
from planar3d.evaluation.lesion_table import lesion_table
from planar3d.files import write_json
from planar3d.scans.volume import read_mask

pytestmark = pytest.mark.usefixtures("built_once")
DESCRIPTOR = Path(bids_app.__file__).with_name("planar3d-bids.json")
SKIP = "--skip-bids-validation"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def dataset(tmp_path, model):
    """Two participants, the second with two sessions; and a tiny model."""
    folder = tmp_path / "study"
    for number, place in enumerate(("sub-01", "sub-02/ses-1", "sub-02/ses-2")):
        head = 100 * np.random.default_rng(number).random((20, 28, 24))
        head[6:12, 9:16, 8:13] += 60
        path = folder / place / "anat" / f"{place.replace('/', '_')}_FLAIR.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(head.astype(np.int16), np.diag([-1.1, -1.0, 1.2, 1.0])), path)
    write_json(folder / "dataset_description.json", {"Name": "Some heads", "BIDSVersion": "1.9.0"})
    return folder, model


def test_participants_are_segmented_one_by_one_into_one_data_set_and_summed_up(dataset, tmp_path, capsys, monkeypatch):
    pytest.importorskip("jinja2")
    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir())  # -w is for a process; other tests follow here
    folder, model = dataset
    words = [str(folder), str(tmp_path / "out"), "participant", "--model", str(model), SKIP]
    assert bids_app.run([*words, "--participant_label", "02", "--session-label", "ses-2"]) == 0
    assert [path.name for path in tmp_path.rglob("*_mask.nii.gz")] == ["sub-02_ses-2_label-lesion_mask.nii.gz"]
    assert bids_app.run([*words, "--participant-label", "sub-01", "02", "-w", str(tmp_path / "new/work")]) == 0
    assert tempfile.gettempdir() == str(tmp_path / "new/work")
    assert len(list(tmp_path.rglob("*_label-lesion_mask.nii.gz"))) == 3
    mask = read_mask(tmp_path / "out/sub-01/anat/sub-01_label-lesion_mask.nii.gz")
    instances = nib.load(tmp_path / "out/sub-01/anat/sub-01_seg-lesions_dseg.nii.gz")
    numbers, sizes = np.unique(np.asarray(instances.dataobj), return_counts=True)
    lesions = lesion_table(mask)
    assert dict(zip(numbers[numbers > 0], sizes[numbers > 0], strict=True)) == {
        one.lesion: one.voxels for one in lesions
    }
    table = (tmp_path / "out/sub-01/anat/sub-01_seg-lesions_dseg.tsv").read_text().splitlines()
    assert table[0] == "index\tname\tvolume_ml" and len(table) == 1 + len(lesions)
    about = json.loads((tmp_path / "out/sub-01/anat/sub-01_seg-lesions_dseg.json").read_text())
    assert set(table[0].split()) - {"index", "name"} <= about.keys()  # columns that the standard does not define
    (tmp_path / "out/scans.csv").unlink()
    (folder / "dataset_description.json").unlink()  # the data set is neither read nor validated
    assert bids_app.run([str(folder), str(tmp_path / "out"), "group", "-w", str(tmp_path / "new/work")]) == 0
    assert (tmp_path / "out/scans.csv").read_text().count(",done,") == 3
    said = capsys.readouterr().out
    assert said.endswith("3 of 3 scans done\n") and "validate" not in said


def test_advice_of_its_errors_can_be_followed(dataset, tmp_path, capsys):
    pytest.importorskip("jinja2")
    folder, model = dataset
    words = [str(folder), str(tmp_path / "out"), "participant", "--model", str(model), SKIP]
    assert bids_app.run(words) == 0
    for path in folder.rglob("*.nii.gz"):  # other scans, without geometry
        voxels = np.asarray(nib.load(path).dataobj) + 1
        header = nib.Nifti1Image(voxels, None).header
        header["sform_code"] = header["qform_code"] = 0
        nib.save(nib.Nifti1Image(voxels, None, header), path)
    assert bids_app.run(words) == 1 and "--overwrite to replace it" in capsys.readouterr().out
    assert bids_app.run([*words, "--overwrite"]) == 1 and "add --assume-affine" in capsys.readouterr().out
    assert bids_app.run([*words, "--overwrite", "--assume-affine"]) == 0


def test_participants_that_are_not_there_are_named(dataset, tmp_path):
    words = [str(dataset[0]), str(tmp_path / "out")]
    with pytest.raises(DatasetError, match="absent is not a folder; name a raw BIDS data set"):
        bids_app.run([str(tmp_path / "absent"), str(tmp_path / "derivatives"), "participant"])
    with pytest.raises(DatasetError, match="study has no folder sub-7; name participants"):
        bids_app.run([*words, "participant", SKIP, "--participant-label", "01", "7"])
    with pytest.raises(DatasetError, match=r"study has no folder sub-\*/ses-08; name sessions"):
        bids_app.run([*words, "participant", SKIP, "--session-label", "08"])
    for label in ("*", "a**b"):
        with pytest.raises(DatasetError, match="; name sessions of the data set"):
            bids_app.run([*words, "participant", SKIP, "--session-label", label])
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for place in ("file/out", "link/out"):
        with pytest.raises(DatasetError, match=rf"{place[:4]} is not a folder; name one, which need not exist"):
            bids_app.run([words[0], str(tmp_path / place), "participant", SKIP])
    for places in ([str(tmp_path / "file")], [words[1], "-w", str(tmp_path / "file")]):
        with pytest.raises(DatasetError, match="file is not a folder; name one, which need not exist"):
            bids_app.run([words[0], places[0], "participant", SKIP, *places[1:]])
    with pytest.raises(RunError, match="out does not exist; name a folder"):
        bids_app.run([*words, "group", SKIP])
    assert not (tmp_path / "out").exists()


def test_an_invalid_data_set_is_refused_with_what_is_wrong(tmp_path):
    pytest.importorskip("bids_validator_deno")
    (tmp_path / "study/sub-01/anat").mkdir(parents=True)
    (tmp_path / "study/sub-01/anat/lesions.nii.gz").touch()
    with pytest.raises(DatasetError, match=r"study is not a valid BIDS data set: \d+ errors?, the first [A-Z_]+"):
        bids_app.run([str(tmp_path / "study"), str(tmp_path / "out"), "participant"])


@pytest.mark.parametrize("level", ["participant", "group"])
def test_a_package_for_reports_is_missed_before_the_data_set_is_validated(tmp_path, monkeypatch, level):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(Planar3DError, match=r"need jinja2, which is not installed.*planar3d\[study\]"):
        bids_app.run([str(tmp_path), str(tmp_path / "out"), level])


def test_the_validator_does_not_look_for_a_newer_version(tmp_path, monkeypatch):
    program = "def cli(): import os; print(os.environ['DENO_NO_UPDATE_CHECK'] and '{\"issues\": {\"issues\": []}}')"
    (tmp_path / "bids_validator_deno.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    bids_app.validate(tmp_path, pytest.fail)


def test_a_validator_that_says_no_text_is_refused_and_nothing_in_the_current_folder_runs(tmp_path, monkeypatch):
    (tmp_path / "bids_validator_deno.py").write_text(
        "def cli(): import os; os.write(1, b'\\xff'), os.write(2, b'\\xff')"
    )
    (tmp_path / "here").mkdir()
    (tmp_path / "here/bids_validator_deno.py").write_text("open('ran', 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(RunError, match=r"The BIDS validator failed on .*Use --skip-bids-validation\."):
        bids_app.validate(tmp_path, pytest.fail)
    assert not (tmp_path / "here/ran").exists()


def test_the_descriptor_has_the_flags_and_the_version_of_the_command():
    described = json.loads(DESCRIPTOR.read_text(encoding="utf-8"))
    assert described["tool-version"] == planar3d.__version__
    named = {one.get("command-line-flag", one["id"]) for one in described["inputs"]}
    actions = bids_app.parser()._actions
    known = {next((flag for flag in action.option_strings if len(flag) > 2), action.dest) for action in actions}
    assert named == known - {"--help", "--version"}


def test_the_descriptor_is_valid():
    pytest.importorskip("boutiques")
    from boutiques.validator import validate_descriptor

    validate_descriptor(json.loads(DESCRIPTOR.read_text(encoding="utf-8")))
