"""Of a BIDS data set the raw FLAIR scans are taken, and their masks make a derivatives data set that is valid."""

import importlib.util
import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from planar3d.errors import DatasetError, ScanError
from planar3d.files import write_json
from planar3d.scans.bids import (
    derivative_names,
    find_bids_scans,
    is_bids,
    sidecar,
    write_dataset_description,
    write_instance_sidecars,
    write_sidecars,
)
from planar3d.scans.inputs import find_inputs, outputs_of, read_input_images
from planar3d.scans.layouts import find_cases
from planar3d.scans.volume import Scan

RAW = ("sub-01/anat/sub-01_FLAIR", "sub-02/ses-1/anat/sub-02_ses-1_acq-3D_ce-gd_rec-norm_run-1_FLAIR")
LESIONS = {"lesion": (1,)}
RECORD = {
    "scan": {"name": "a", "path": "/d/a.nii.gz", "shape": [4, 5, 6]},
    "model": {"name": "m", "threshold": 32.0},
    "lesions": [{"lesion": 1, "volume_ml": 2.2, "extent_mm": [1, 2, 3], "mean_probability": None}],
    "warnings": [],
    "files": {"mask": "a_mask.nii.gz"},
    "seconds": 14.2,
}


@pytest.fixture
def dataset(tmp_path):
    """A raw data set of two subjects, with what is not to be taken beside the scans."""
    folder = tmp_path / "study"
    voxels = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    others = "derivatives/x/sub-01/anat/sub-01_desc-preproc_FLAIR", "sourcedata/sub-01/anat/sub-01_FLAIR"
    for name in (*RAW, *others, "sub-01/anat/sub-01_T1w", "sub-01/anat/._sub-01_FLAIR"):
        path = folder / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0]))
        image.header.set_xyzt_units("mm", "sec")
        nib.save(image, path)
    write_json(folder / "dataset_description.json", {"Name": "Some heads", "BIDSVersion": "1.9.0"})
    return folder


def _write_outputs(dataset, out, scored):
    write_dataset_description(out, dataset)
    for item in find_inputs([dataset]):
        scan, outputs = read_input_images(item)["flair"], outputs_of(item, out, len(scored) > 1)
        fields = write_sidecars(item.dataset, item.path, outputs, scored, True)
        write_json(outputs.record, fields | RECORD)
        Scan((scan.voxels > 50).astype(np.uint8), scan.header).save(outputs.mask)
        Scan(scan.voxels / 119, scan.header).save(outputs.probability)
        Scan((scan.voxels > 50).astype(np.uint16), scan.header).save(outputs.instances)
        write_instance_sidecars(item.dataset, item.path, outputs, [{"lesion": 1, "volume_ml": 2.2}])
        for path in (
            outputs.lesions,
            outputs.overlay,
            outputs.report,
            out / "report.html",
            out / "scans.csv",
            out / ".planar3d/a.json",
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("lesion\tvolume_ml\n1\t2.2\n")


def _errors(folder):
    """What the validator finds wrong, as (code, place)."""
    if importlib.util.find_spec("bids_validator_deno") is None:
        pytest.skip("needs the BIDS validator: pip install bids-validator-deno")
    program = "import sys; from bids_validator_deno import cli; sys.exit(cli())"
    run = subprocess.run([sys.executable, "-c", program, folder, "--format", "json"], capture_output=True, text=True)
    assert run.stdout, run.stderr
    found = json.loads(run.stdout)
    assert found["summary"]["totalFiles"] > 0
    return [(i["code"], i.get("location")) for i in found["issues"]["issues"] if i["severity"] == "error"]


def test_raw_scans_are_taken_and_no_derivatives(dataset):
    items = find_inputs([dataset])
    assert [item.path for item in items] == [dataset / f"{name}.nii.gz" for name in RAW]
    assert {item.dataset for item in items} == {dataset}
    (dataset / "dataset_description.json").unlink()
    assert is_bids(dataset) and len(find_inputs([dataset])) == 2
    assert not is_bids(dataset / "sub-01")


def test_a_data_set_without_flair_or_of_derivatives_is_refused(tmp_path):
    description = tmp_path / "dataset_description.json"
    description.write_text('{"Name": "x"}')
    with pytest.raises(ScanError, match="BIDS data set without FLAIR scans"):
        find_bids_scans(tmp_path)
    description.write_text('{"Name": "x", "DatasetType": "derivative"}')
    with pytest.raises(ScanError, match="of type derivative; the raw one is needed"):
        find_bids_scans(tmp_path)
    for damaged, sentence in (("{", "cannot be read"), ("[]", "is not a JSON object"), ("[" * 10**5, "cannot be read")):
        description.write_text(damaged)
        with pytest.raises(ScanError, match=sentence):
            find_bids_scans(tmp_path)


@pytest.fixture
def contrasts(tmp_path):
    """A raw data set of one subject with images of five contrasts, among them two T2w, and a mask."""
    folder = tmp_path / "study"
    for number, name in enumerate(("FLAIR", "T1w", "ce-gadolinium_T1w", "run-1_T2w", "run-2_T2w", "PDw", "T2star")):
        voxels = np.full((4, 5, 6), number, np.int16)
        voxels[0, 0, 0] = 9
        (folder / "sub-01/anat").mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"sub-01/anat/sub-01_{name}.nii.gz")
    (folder / "derivatives/m").mkdir(parents=True)
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[1, 1, 1] = 1
    nib.save(nib.Nifti1Image(mask, np.eye(4)), folder / "derivatives/m/sub-01_label-lesion_mask.nii.gz")
    return folder


def test_other_contrasts_of_the_visit_are_images_of_the_case(contrasts, tmp_path):
    (contrasts / "sub-01/perf").mkdir()
    (contrasts / "sub-01/perf/sub-01_run-3_T2w.nii.gz").touch()  # only images in anat count
    dataset = find_cases(contrasts)
    (case,) = dataset.cases
    assert {name: path.name[7:-7] for name, path in case.images.items()} == {
        **{"flair": "FLAIR", "t1": "T1w", "t1ce": "ce-gadolinium_T1w", "pd": "PDw"},
        **{"t2_run-1": "run-1_T2w", "t2_run-2": "run-2_T2w"},
    }
    dataset.require(("flair", "t1ce"))
    with pytest.raises(DatasetError, match=r"sub-01 has no image t2; it has flair, .*t2_run-1, t2_run-2"):
        dataset.require(("flair", "t2"))
    (item,) = find_inputs([contrasts], ("t1ce", "flair"))
    assert {name: scan.voxels[1, 1, 1] for name, scan in read_input_images(item).items()} == {"t1ce": 2, "flair": 0}
    outputs = outputs_of(item, tmp_path / "out", several=True)
    assert outputs.mask == tmp_path / "out/sub-01/anat/sub-01_ce-gadolinium_seg-targets_dseg.nii.gz"
    write_sidecars(item.dataset, item.path, outputs, {"WT": (1, 4), "ET": (4,)}, False)
    assert outputs.record.with_suffix(".tsv").read_text() == "index\tname\n1\tWT\n4\tWT+ET\n"
    (contrasts / "sub-01/anat/sub-01_run-2_T2w.nii.gz").unlink()
    assert "t2" in find_cases(contrasts).cases[0].images


def test_of_several_images_of_a_contrast_that_of_the_run_is_taken(contrasts):
    flair = contrasts / "sub-01/anat/sub-01_FLAIR.nii.gz"
    flair.rename(flair.with_name("sub-01_run-02_FLAIR.nii.gz"))
    (item,) = find_inputs([contrasts], ("flair", "t2"))
    assert item.images["t2"].name == "sub-01_run-2_T2w.nii.gz" and not item.problem


def test_images_that_are_not_needed_may_be_broken_and_those_that_are_lie_on_one_grid(contrasts):
    anat = contrasts / "sub-01/anat"
    (anat / "sub-01_T1w.nii.gz").unlink()
    (anat / "sub-01_T1w.nii.gz").symlink_to("../../.git/annex/objects/absent")
    taller = np.arange(140, dtype=np.int16).reshape(4, 5, 7)
    nib.save(nib.Nifti1Image(taller, np.eye(4)), anat / "sub-01_PDw.nii.gz")
    dataset = find_cases(contrasts)
    dataset.require(("flair", "t1ce"))
    with pytest.raises(DatasetError, match=r"1 file cannot be used: \S*T1w.nii.gz\. .*git-annex"):
        dataset.require(("flair", "t1"))
    (item,) = find_inputs([contrasts], ("flair", "pd"))
    with pytest.raises(ScanError, match=r"has shape \(4, 5, 7\).*Register and resample"):
        read_input_images(item)


def test_outputs_keep_the_entities_of_their_scans(dataset, tmp_path):
    first, second = (outputs_of(item, tmp_path / "out") for item in find_inputs([dataset]))
    assert first.mask == tmp_path / "out/sub-01/anat/sub-01_label-lesion_mask.nii.gz"
    stem = "sub-02_ses-1_acq-3D_ce-gd_rec-norm_run-1_label-lesion"
    assert second.record == tmp_path / f"out/sub-02/ses-1/anat/{stem}_mask.json"
    assert second.probability == tmp_path / f"out/sub-02/ses-1/anat/{stem}_probseg.nii.gz"
    assert second.report == tmp_path / f"out/sub-02/figures/{stem}_report.html"
    assert len({path for outputs in (first, second) for path in vars(outputs).values()}) == 24


def test_a_name_with_a_dot_keeps_its_sidecars_apart(dataset, tmp_path):
    scan = dataset / "sub-1.5/anat/sub-1.5_FLAIR.nii.gz"
    outputs = derivative_names(dataset, scan, tmp_path / "out")
    write_instance_sidecars(dataset, scan, outputs, [])
    written = {path.name for path in (tmp_path / "out").rglob("*.*") if path.is_file()}
    assert written == {f"sub-1.5_seg-lesions_dseg.{ending}" for ending in ("json", "tsv")}


def test_links_to_the_sources_lead_there(dataset, tmp_path):
    out = tmp_path / "some/where"
    description = json.loads(write_dataset_description(out, dataset).read_text())
    for item in find_inputs([dataset]):
        fields = sidecar(item.dataset, item.path, "x")
        scheme, name, within = fields["Sources"][0].split(":")
        assert scheme == "bids" and fields["SpatialReference"] == fields["Sources"][0]
        assert os.path.samefile(out / description["DatasetLinks"][name] / within, item.path)


@pytest.mark.parametrize(
    ("out", "scored"),
    [("elsewhere", LESIONS), ("study/derivatives/planar3d", LESIONS), ("elsewhere", {"WT": (1, 4), "ET": (4,)})],
)
def test_the_validator_finds_nothing_wrong(dataset, tmp_path, out, scored):
    for folder in ("derivatives/x", "sourcedata"):  # neither is valid, nor is it to be looked at
        assert (dataset / folder).is_dir()
    _write_outputs(dataset, tmp_path / out, scored)
    assert _errors(tmp_path / out) == []
    assert len(find_inputs([dataset])) == 2


def test_the_validator_would_find_what_is_wrong(dataset, tmp_path):
    _write_outputs(dataset, tmp_path / "out", LESIONS)
    (tmp_path / "out/.bidsignore").unlink()
    found = dict(_errors(tmp_path / "out"))
    assert found["NOT_INCLUDED"]


def test_a_description_is_written_once_and_gone_on_with(dataset, tmp_path):
    out = tmp_path / "out"
    path = write_dataset_description(out, dataset)
    description = json.loads(path.read_text())
    assert description["DatasetType"] == "derivative" and description["Name"] == "Lesion masks of Some heads"
    before = path.stat().st_mtime_ns
    write_dataset_description(out, dataset)
    assert path.stat().st_mtime_ns == before
    maker = description["GeneratedBy"][0]
    path.write_text(json.dumps(description | {"Authors": ["N. N."], "GeneratedBy": [maker | {"Version": "0.0.1"}]}))
    (out / ".bidsignore").write_text("mine\n")
    write_dataset_description(out, dataset)
    after = json.loads(path.read_text())
    assert after["Authors"] == ["N. N."] and after["GeneratedBy"] == [maker | {"Version": "0.0.1"}, maker]
    assert (out / ".bidsignore").read_text() == "mine\n"
    path.write_text("{")
    with pytest.raises(ScanError, match="Fix it, or choose another folder"):
        write_dataset_description(out, dataset)


def test_a_data_set_is_the_same_and_is_linked_by_whatever_links_of_folders_it_is_named(dataset, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "home").mkdir()
    linked, out = tmp_path / "home/study", tmp_path / "home/masks"
    linked.symlink_to(dataset)
    out.symlink_to(tmp_path / "out")
    content = json.loads(write_dataset_description(out, linked).read_text())
    assert (out / content["DatasetLinks"]["raw"]).samefile(dataset)
    for folder, raw in ((out, dataset), (tmp_path / "out", dataset), (tmp_path / "out", linked)):
        assert json.loads(write_dataset_description(folder, raw).read_text()) == content
    (tmp_path / "other/masks").mkdir(parents=True)
    deeper = tmp_path / "masks"
    deeper.symlink_to(tmp_path / "other/masks")
    content = json.loads(write_dataset_description(deeper, dataset).read_text())
    assert (deeper / content["DatasetLinks"]["raw"]).samefile(dataset)


def test_a_data_set_on_another_drive_is_linked_by_its_whole_path(dataset, tmp_path, monkeypatch):
    def relpath(path, start):  # as on Windows
        raise ValueError(f"path is on mount 'D:', start on mount 'C:': {path}, {start}")

    monkeypatch.setattr(os.path, "relpath", relpath)
    for _ in range(2):
        content = json.loads(write_dataset_description(tmp_path / "out", dataset).read_text())
        assert content["DatasetLinks"]["raw"] == dataset.resolve().as_posix()


def test_foreign_data_sets_are_left_alone(dataset, tmp_path):
    with pytest.raises(ScanError, match="is the data set of the scans"):
        write_dataset_description(dataset, dataset)
    foreign = tmp_path / "foreign/dataset_description.json"
    foreign.parent.mkdir()
    for content in ('{"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep"}]}', '{"Name": "x", "GeneratedBy": "planar3d"}'):
        foreign.write_text(content)
        with pytest.raises(ScanError, match="a data set that planar3d did not create"):
            write_dataset_description(foreign.parent, dataset)
        assert foreign.read_text() == content
    write_dataset_description(tmp_path / "out", dataset)
    with pytest.raises(ScanError, match=r"holds masks of the data set \.\./study, not of \.\./other"):
        write_dataset_description(tmp_path / "out", tmp_path / "other")
