"""The command line: sentences and exit codes, and the same results as the functions."""

import errno
import importlib
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from msseg import RECIPE, TINY, write_model, write_msseg
from narrow_networks import narrow_networks

import planar3d
from planar3d import cli
from planar3d.commands.output import list_failed, say, show
from planar3d.errors import Planar3DError, Planar3DWarning
from planar3d.files import write_text
from planar3d.inference.segmenter import segment
from planar3d.locks import Holder
from planar3d.networks.model_card import WRITTEN
from planar3d.networks.publishing import publish_weights
from planar3d.networks.registry import list_networks, recipe_network
from planar3d.networks.weights_file import Model, save_weights
from planar3d.recipes.demonstrations import DEMONSTRATIONS
from planar3d.training.backends import on_gpu
from planar3d.transfer import published_models
from planar3d.transfer.digests import file_sha256
from planar3d.transfer.published_models import PublishedModel

pytestmark = pytest.mark.usefixtures("built_once")
ROOT = Path(__file__).parents[1]
SETTINGS = [word for setting in TINY for word in ("--set", setting)]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: exit code, standard output and error."""

    def run(*words, command=None):
        monkeypatch.setattr(sys, "argv", ["planar3d", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main(command)
            raise SystemExit(0)
        streams = capsys.readouterr()
        return stopped.value.code or 0, streams.out, streams.err

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_msseg(tmp_path_factory.mktemp("msseg"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def published(model, tmp_path_factory):
    card = dict.fromkeys(WRITTEN, "as the test says") | {"name": "ms-flair-open", "scores": {"mean Dice": 0.5}}
    return publish_weights(model, tmp_path_factory.mktemp("published") / "ms-flair-open.weights.h5", None, card)


@pytest.fixture
def name(published, monkeypatch):
    """The open model's name, which for this test stands for a tiny file with the digest of that."""
    line = PublishedModel(published.name, file_sha256(published), 1, "CC BY 4.0")
    monkeypatch.setattr(published_models, "published_models", lambda: {"ms-flair-open": line})
    monkeypatch.setenv("PLANAR3D_WEIGHTS", str(published.parent))
    return "ms-flair-open"


def test_a_published_model_goes_by_its_name(run, data, name, published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scan = min(data.rglob("3DFLAIR.nii.gz"))
    masks = []
    for model in (name, published):
        code, _, err = run("predict", scan, "--model", model, "--out", tmp_path / str(len(masks)))
        assert code == 0, err
        masks.append(nib.load(next((tmp_path / str(len(masks))).glob("*_mask.nii.gz"))).get_fdata())
    np.testing.assert_array_equal(*masks)
    code, out, _ = run("info", "--model", name)
    assert code == 0 and out.startswith("ms-flair-open\n") and "mean Dice: 0.5" in out
    assert (
        out.index("Licence: as the test says")
        < out.index(f"Threshold: {RECIPE.threshold:g} of 256")
        < out.index("16×32×32×4")
    )
    code, _, err = run("export", "--model", name, "--format", "savedmodel", "--out", tmp_path / "exported")
    assert code == 0 and any((tmp_path / "exported").iterdir()), err


def test_a_wrong_published_file_is_exit_code_2(run, name, published, tmp_path, monkeypatch):
    (tmp_path / published.name).write_bytes(b"another")
    monkeypatch.setenv("PLANAR3D_WEIGHTS", str(tmp_path))
    code, _, err = run("info", "--model", name)
    assert code == 2 and "is not the published model ms-flair-open" in err and "Traceback" not in err


def test_scans_are_segmented_and_a_bad_one_does_not_stop_the_others(run, data, model, tmp_path):
    good = sorted(data.rglob("3DFLAIR.nii.gz"))[:2]
    bad = tmp_path / "bad_FLAIR.nii.gz"
    bad.write_bytes(b"no scan")
    code, out, _ = run("predict", *good, bad, "--model", model, "--out", tmp_path / "masks", "--overlay")
    assert code == 1 and "bad_FLAIR.nii.gz is not a NIfTI file" in out
    names = {p.name for p in (tmp_path / "masks").iterdir()}
    endings = (".json", "_lesions.csv", "_mask.nii.gz", "_overlay.png")
    of_scans = {f"{i}_3DFLAIR{ending}" for i in ("01A", "01B") for ending in endings}
    assert names == of_scans | {"scans.csv", "lesions.csv", ".planar3d"}
    code, out, _ = run("status", tmp_path / "masks")
    assert code == 0 and out.startswith("2 of 3 scans done, 1 failed\nfailed  ") and "is not a NIfTI file" in out
    code, out, _ = run("table", tmp_path / "masks", "--json")
    assert [scan["state"] for scan in json.loads(out)["scans"]] == ["done", "done", "failed"]
    mask, scan = nib.load(tmp_path / "masks/01A_3DFLAIR_mask.nii.gz"), nib.load(good[0])
    assert mask.shape == scan.shape and mask.get_data_dtype() == np.uint8
    mask_file, damaged = (tmp_path / "masks" / name for name in ("01A_3DFLAIR_mask.nii.gz", "01B_3DFLAIR.json"))
    before = mask_file.read_bytes()
    mask_file.unlink()
    damaged.write_text("{")
    code, out, _ = run("status", tmp_path / "masks")
    assert out.startswith("0 of 3 scans done, 2 failed, 1 missing\n") and out.count("is not readable as JSON") == 1
    assert f"missing  {good[0]}: {mask_file.name} does not exist; run predict again\n" in out
    for command in ("table", "report"):  # and name it among what failed
        assert f"{good[1]}: {damaged} is not readable as JSON" in run(command, tmp_path / "masks")[1]
    assert str(damaged) in (tmp_path / "masks/scans.csv").read_text()
    assert str(damaged) in (tmp_path / "masks/report.html").read_text()
    damaged.unlink()  # as the sentence advises
    (tmp_path / "masks/01B_3DFLAIR_mask.nii.gz").unlink()
    assert run("predict", *good, "--model", model, "--out", tmp_path / "masks")[0] == 0
    assert mask_file.read_bytes() == before and run("status", tmp_path / "masks")[1].startswith("2 of 3 scans done")


def test_a_single_bad_input_is_exit_code_2_and_leaves_nothing(run, model, tmp_path):
    (tmp_path / "bad.nii.gz").write_bytes(b"no scan")
    code, _, err = run("predict", tmp_path / "bad.nii.gz", "--model", model, "--out", tmp_path / "masks")
    assert code == 2 and err.startswith("Error: ") and "bad.nii.gz" in err and "Traceback" not in err
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "No scan was given"),
        (["--image", "flair"], "--image flair: a name and a file are needed"),
        (["--image", "flair=a.nii", "--image", "flair=b.nii"], "--image flair is given twice"),
        (["--image", "t1ce=a.nii"], "a has no image flair; it has t1ce"),
        (["--image", "flair=absent.nii"], "absent.nii does not exist"),
    ],
)
def test_images_by_name_that_cannot_be_used_are_a_usage_error(run, model, tmp_path, words, sentence):
    code, _, err = run("predict", *words, "--model", model, "--out", tmp_path / "out")
    assert code == 2 and sentence in " ".join(err.replace("│", " ").split()) and "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
@pytest.mark.parametrize(
    "words",
    [
        ["predict", "SCAN", "--model", "MODEL", "--overlay"],
        ["predict", "SCAN", "--model", "MODEL", "--report"],
        ["compare", "SCAN", "SCAN", "--model", "MODEL"],
        ["crossval", "--data", "DATA", *SETTINGS],
        ["weights", "--source", "absent.h5"],
        ["reproduce", "--demo"],
    ],
)
def test_a_package_that_the_end_needs_is_missed_at_the_beginning(
    run, data, model, tmp_path, monkeypatch, words, missing
):
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed
    given = {"SCAN": min(data.rglob("3DFLAIR.nii.gz")), "MODEL": model, "DATA": data}
    code, _, err = run(*(given.get(word, word) for word in words), "--out", tmp_path / "out")
    assert code == 2 and f"need {missing}, which is not installed" in err and "'planar3d[study]'" in err
    assert not any(tmp_path.iterdir())


def test_a_missing_engine_is_missed_before_scans_are_looked_for(run, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    for words in (["--engine", "openvino"], ["--precision", "int8"]):
        code, _, err = run("predict", "a.nii", "b.nii", "--model", model, "--out", tmp_path / "out", *words)
        assert code == 2 and "needs openvino, which is not installed" in err and not any(tmp_path.iterdir())


def test_several_models_are_averaged_and_the_record_names_each(run, data, model, tmp_path):
    network, scan = recipe_network(RECIPE), min(data.rglob("3DFLAIR.nii.gz"))
    network.get_layer("conv10").bias.assign([1.0])
    other = save_weights(network, tmp_path / "other.weights.h5", RECIPE, {"licence": "CC BY 4.0"})
    words = ("predict", scan, "--out", tmp_path / "both", "--engine", "keras", "--method", "windowed", "--model")
    code, _, err = run(*words, f"{model},{other}")
    assert code == 0, err
    record = json.loads((tmp_path / "both/3DFLAIR.json").read_text())
    assert record["model"]["members"] == [Model.open(path).describe() for path in (model, other)]
    assert [member["sha256"] for member in record["model"]["members"]] == [file_sha256(model), file_sha256(other)]
    assert record["model"]["licence"] == "not stated; CC BY 4.0"
    assert record["how"]["description"] == "mean of 2 models, windowed on Keras, float32"
    expected = segment(scan, [model, other], engine="keras", method="windowed")
    np.testing.assert_array_equal(nib.load(tmp_path / "both/3DFLAIR_mask.nii.gz").dataobj, expected.voxels)
    code, out, err = run(*words, f"{model}, {other}")
    assert code == 0 and "already exists" in out, err
    code, _, err = run(*words, model)
    assert code == 2 and "made by another model" in err
    code, _, err = run(*words, f"{model},absent.h5")
    assert code == 2 and "absent.h5 does not exist" in err


def test_a_folder_of_scans_is_segmented_whole(run, data, model, tmp_path):
    code, out, _ = run("predict", data, "--model", model, "--out", tmp_path)
    assert code == 0 and len(list(tmp_path.glob("*_mask.nii.gz"))) == 6
    code, out, err = run("predict", tmp_path, "--model", model, "--out", tmp_path / "x")
    assert code == 2 and "has no .nii or .nii.gz file with FLAIR in its name" in err and not out
    assert not (tmp_path / "x").exists()


def test_results_as_json_are_alone_on_the_standard_output(run, data, model, tmp_path):
    scan, absent = min(data.rglob("3DFLAIR.nii.gz")), tmp_path / "absent_FLAIR.nii"
    words = ("predict", scan, absent, "--model", model, "--out", tmp_path, "--engine", "keras", "--report", "--json")
    code, out, err = run(*words)
    result = json.loads(out)
    assert code == 1 and list(result["failed"]) == [str(absent)] and "1/2" in err
    (record,) = result["scans"]
    assert record == json.loads((tmp_path / record["files"]["record"]).read_text())
    page = (tmp_path / "report.html").read_text()
    assert record["scan"]["name"] in page and str(absent) in page
    (tmp_path / "report.html").unlink()
    claim = tmp_path / ".planar3d" / "claim-all.json"  # of a process that was killed, and what it left
    claim.write_text(json.dumps(Holder("", 0, "", 0.0)._asdict()))
    os.utime(claim, (0, 0))
    (tmp_path / ".writing-killed00-report.html").touch()
    assert run("report", tmp_path)[0] == 0 and not list(tmp_path.glob(".writing-*"))
    assert record["scan"]["name"] in (tmp_path / "report.html").read_text()
    assert json.loads(run("report", tmp_path, "--json")[1])["scans"] == [record]
    mask = tmp_path / record["files"]["mask"]
    code, out, _ = run("evaluate", mask, mask, "--json")
    assert code == 0 and {"dice", "sensitivity"} <= json.loads(out).keys()


def test_a_folder_of_predict_has_a_report_before_its_first_mask(run, tmp_path):
    (tmp_path / ".planar3d").mkdir()  # as of a run that was interrupted, or whose scans all failed
    code, out, err = run("report", tmp_path, "--json")
    assert code == 0 and json.loads(out)["scans"] == [], err


def test_the_whole_card_of_a_weights_file_can_be_printed(run, name):
    code, out, _ = run("info", "--model", name, "--card")
    assert code == 0 and out.startswith("# ms-flair-open") and "as the test says" in out


def test_crossval_then_report_then_evaluate(run, data, tmp_path, untraced, one_box):
    out_folder = tmp_path / "run"
    code, out, _ = run("crossval", "--data", data, "--out", out_folder, "--only", "1", *SETTINGS)
    assert code == 0 and "report.html" in out and "0.611" in out
    shutil.rmtree(out_folder / "report")
    code, out, _ = run("report", out_folder, "--json")
    scores = json.loads(out)["scores"]
    assert code == 0 and (out_folder / "report/table2.csv").is_file()
    assert {row["grid"] for row in scores} == {"prepared", "native"} and "dice" in scores[0]["values"]
    reference = data / "TrainingDataset_MSSEG/01B/Consensus.nii.gz"
    code, out, _ = run("evaluate", reference, reference)
    assert code == 0 and any(line.split() == ["dice", "1.000"] for line in out.splitlines())


def test_prepare_and_train_make_the_same_run_folder_as_crossval(run, data, tmp_path, untraced):
    assert run("prepare", "--data", data, "--out", tmp_path / "run", *SETTINGS)[0] == 0
    assert len(list((tmp_path / "run/prepared").glob("*/voxels.npy"))) == 6
    code, _out, _ = run("train", "--data", data, "--out", tmp_path / "run", "--fold", "2", *SETTINGS)
    assert code == 0 and (tmp_path / "run/fold-2/best.weights.h5").is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["crossval", "--data", "absent", "--out", "run"], "absent does not exist"),
        (["crossval", "--data", "DATA", "--out", "run", "--recipe", "papier"], "dx-released. Did you mean paper?"),
        (["crossval", "--data", "DATA", "--out", "run", "--set", "epoch=3"], "no field 'epoch'"),
        (["crossval", "--data", "DATA", "--out", "run", *SETTINGS, "--only", "7"], "Fold 7 does not exist"),
        (["crossval", "--data", "DATA", "--out", "run", *SETTINGS, "--folds", "9"], "Choose 2 folds"),
        (["train", "--data", "DATA", "--out", "run", *SETTINGS, "--fold", "9"], "Fold 9 does not exist"),
        (["predict", "DATA", "--model", "absent.h5", "--out", "run"], "absent.h5 does not exist"),
        (["predict", "DATA", "--model", "absent.h5", "--out", "run.nii.gz"], "is the name of an image"),
        (["compare", "a.nii", "b.nii", "--model", "absent.h5", "--out", "m.NII"], "is the name of an image"),
        (["compare", "a.nii", "b.nii", "--masks", "m.nii", "--out", "run"], "masks of both scans are needed"),
        (["predict", "DATA", "--model", "absent.h5", "--out", os.devnull], "is not a folder; name one, which need"),
        (["reproduce", "--system", "?"], "'?' is unknown; choose one of: 'paper', "),
        (["report", "DATA"], "not a run folder: it has no recipe.json"),
        (["evaluate", "absent", "DATA"], "absent does not exist"),
        (["evaluate", __file__, "DATA"], "test_cli.py is not; name two masks, or a folder of masks and then the data"),
        (["report", "absent"], "absent is not a run folder: it does not exist"),
        (["weights", "--out", "run", "--format", "onnx"], "'onnx' is unknown"),
        (["weights", "--out", "run", "--source", "imagenett"], "imagenett does not exist; name a file of the"),
        (["crossval", "--data", "DATA", "--out", "run", "--set", "encoder_weights=imagnet"], "weights, or 'imagenet'."),
        (["info", "--network", "unet"], f"choose one of: {', '.join(map(repr, list_networks()))}, 'vgg16'"),
        (["info", "--network", "vgg16", "--model", "absent.h5"], "either --model"),
        (["info", "--model", "absent.h5"], "absent.h5 does not exist"),
        (["predict", "DATA", "--model", "ms-flair-opne", "--out", "run"], "or a published model: ms-flair-open"),
        (["info", "--size", "16", "--depth", "32"], "no window of 32"),
        (["crossval", "--out", "run"], "--data"),
        (["predict", "DATA", "--model", ",", "--out", "run"], "No model was given"),
        (["phantom", "--out", "run", "--seed", "-1"], "'--seed'"),
        (["phantom", "--out", "run", "--scans-per-center", "0"], "'--scans-per-center'"),
        (["train", "--data", "DATA", "--out", "run", *SETTINGS, "--devices", "0,99"], "0,99: tensorflow finds"),
        pytest.param(
            ["crossval", "--data", "DATA", "--out", "run", *SETTINGS, "--precision", "float16"],
            "precision='float16' needs a GPU, but TensorFlow finds none",
            marks=pytest.mark.skipif(on_gpu(), reason="a GPU computes in float16"),
        ),
    ],
)
def test_a_user_s_mistake_is_a_sentence_and_exit_code_2(run, data, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*(str(data) if word == "DATA" else word for word in words))
    assert code == 2 and sentence in err.replace("\n", " "), (code, out, err)
    assert not (tmp_path / "run").exists()


def test_a_demonstration_has_the_folds_that_are_asked_for(run, tmp_path, monkeypatch):
    small = replace(DEMONSTRATIONS["modern"], reduction=14, scans_per_center=2)
    monkeypatch.setitem(DEMONSTRATIONS, "modern", small)
    code, _, err = run("reproduce", "--demo", "--system", "modern", "--out", tmp_path / "run", "--folds", "9")
    assert code == 2 and "The number of folds cannot be 9" in err and not [*tmp_path.iterdir()]


def test_a_demonstration_into_a_file_is_refused_before_a_phantom_is_written(run, tmp_path, monkeypatch):
    small = replace(DEMONSTRATIONS["modern"], reduction=14, scans_per_center=2)
    monkeypatch.setitem(DEMONSTRATIONS, "modern", small)
    (tmp_path / "thesis.txt").touch()
    code, _, err = run("reproduce", "--demo", "--system", "modern", "--out", tmp_path / "thesis.txt")
    assert code == 2 and "--out" in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_value_that_needs_no_tensorflow_is_refused_before_its_import(data, tmp_path):
    """It takes seconds."""
    out = ["--out", str(tmp_path / "out")]
    commands = [
        ["export", "--model", "ms-flair-open", "--format", "onxn"],
        ["weights", "--format", "hdf"],
        ["info", "--model", "a.weights.h5", "--network", "vgg16"],
        ["train", "--data", str(tmp_path), "--set", "epoch=3", *out],
        ["crossval", "--data", str(tmp_path / "missing"), *out],
        ["crossval", "--data", str(data), "--folds", "20", *out],
        ["prepare", "--data", str(data), "--folds", "all", *out],
        ["reproduce", "--demo", "--only", "first", *out],
    ]
    script = (
        "import json, sys\nfrom typer.testing import CliRunner\nfrom planar3d.cli import app\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    done = CliRunner().invoke(app, words)\n"
        "    assert done.exit_code and 'tensorflow' not in sys.modules, (words, done.exception)\n"
    )
    subprocess.run([sys.executable, "-c", script, json.dumps(commands)], check=True)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["phantom", "--out", ""], "--out"),
        (["reproduce", "--demo", "--out="], "--out"),
        (["evaluate", "masks", "", "--out", "a.csv"], "An argument"),
    ],
)
def test_an_empty_word_is_not_the_current_folder(run, tmp_path, monkeypatch, words, named):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*words)
    assert (code, err) == (2, f"Error: {named} is empty; is a shell variable unset? Give a value.\n")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "words",
    [
        ["crossval", "--data=~/none", "--out", "run"],
        ["report", "~/none"],
        ["crossval", "--data", "data", "--out", "run", "--set", "network.encoder_weights=~/none"],
    ],
)
def test_the_home_folder_is_found_where_the_shell_leaves_its_sign(run, data, tmp_path, monkeypatch, words):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data)
    code, _, err = run(*words)
    assert code == 2 and f"{tmp_path}/home/none" in err


def test_what_the_terminal_s_encoding_lacks_is_printed_with_backslashes(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    cli.run_in_sentences(lambda: say("é → \udce9"))
    stream.flush()
    assert stream.buffer.getvalue().decode("latin-1").endswith("é \\u2192 \\udce9\n")


def test_a_warning_of_data_is_a_sentence_and_others_name_their_place(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    cli.run_in_sentences(lambda: None)
    assert warnings.formatwarning("A map is left out.", Planar3DWarning, "a.py", 1) == "Warning: A map is left out.\n"
    assert warnings.formatwarning("x", UserWarning, "a.py", 1).startswith("a.py:1: UserWarning: x")


def test_a_backend_that_is_not_installed_is_named(capsys, monkeypatch):
    for package in ("torch", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(SystemExit) as ended:
            cli.run_in_sentences(lambda package=package: importlib.import_module(package))
        assert ended.value.code == 2
        assert f"a backend that needs {package} (by KERAS_BACKEND or in ~/.ker" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError):
        cli.run_in_sentences(lambda: importlib.import_module("planar3d.absent"))


def test_a_package_that_is_missing_or_damaged_is_told_in_a_sentence(run, tmp_path, monkeypatch):
    (tmp_path / "damaged.py").write_text("raise ImportError('libtbb.so.12: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    for package, said in {"absent": "No module named 'absent'", "damaged": "libtbb.so.12: cannot open"}.items():
        code, _, err = run(command=lambda package=package: importlib.import_module(package))
        assert code == 2 and f"({said})" in err and "pip install 'planar3d';" in err and "Traceback" not in err


def test_a_backend_that_does_not_exist_is_named():
    code = "from planar3d.cli import run_in_sentences; run_in_sentences(lambda: __import__('keras'))"
    environment = {**os.environ, "KERAS_BACKEND": "absent"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "backend : absent. It is set by KERAS_BACKEND or" in ended.stderr


@pytest.mark.parametrize(("name", "reason"), [("folder", "Is a directory"), ("file/a.csv", "Not a directory")])
def test_an_error_of_writing_names_the_file_that_was_meant(tmp_path, capsys, name, reason):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        cli.run_in_sentences(lambda: write_text(tmp_path / name, "scores"))
    assert capsys.readouterr().err.startswith(f"Error: {tmp_path / name}: {reason}. ")


@pytest.mark.parametrize(
    ("name", "number", "closed", "advice"),
    [
        ("absent/a.csv", errno.EACCES, "", "Make FOLDER writable for your user, or choose another folder with --out."),
        ("a.csv", errno.EPERM, "", "Make FOLDER writable for your user, or choose another folder with --out."),
        ("a.csv", errno.EACCES, "a.csv", "Make FOLDER/a.csv readable for your user, or name another."),
        ("absent/a.csv", errno.EACCES, ".", "Make FOLDER readable for your user, or name another."),
        ("a.csv", errno.EROFS, "", "Choose another folder with --out."),
        ("a.csv", errno.ENOSPC, "", "Free space there, or choose another folder with --out."),
    ],
)
def test_a_refusal_of_the_system_comes_with_what_to_do(tmp_path, monkeypatch, capsys, name, number, closed, advice):
    def refuse():
        raise OSError(number, os.strerror(number), str(tmp_path / name))

    (tmp_path / "a.csv").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: not closed or Path(path) != tmp_path / closed)
    monkeypatch.setattr(sys, "argv", ["planar3d", "crossval", "--out=run"])
    with pytest.raises(SystemExit):
        cli.run_in_sentences(refuse)
    assert capsys.readouterr().err.endswith(f"left behind. {advice.replace('FOLDER', str(tmp_path))}\n")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor\nfollows"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 40 bytes"),
        RuntimeError("Exception from compiled_model.cpp:128:\nstd::bad_alloc\nfollows"),
    ],
    ids=str,
)
def test_a_lack_of_memory_is_a_sentence(error, capsys):
    def call(raised):
        raise raised

    with pytest.raises(SystemExit) as ended:
        cli.run_in_sentences(lambda: call(error))
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "Finished parts are kept" in told and "follows" not in told
    assert re.match(rf"Error: Out of memory \(({type(error).__name__}: |std::bad_alloc\))", told)
    with pytest.raises(RuntimeError, match="another"):
        cli.run_in_sentences(lambda: call(RuntimeError("another")))


def test_a_full_disk_is_a_sentence_and_leaves_nothing(run, data, model, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    scan = next(data.rglob("3DFLAIR.nii.gz"))
    code, _, err = run("predict", scan, "--model", model, "--out", tmp_path)
    assert code == 2 and "No space left on device" in err
    assert list(tmp_path.iterdir()) == []


def test_info_counts_a_window_and_a_scan(run, model):
    code, out, _ = run("info")
    assert code == 0 and "22,870,881" in out and "335.21 GMAC" in out and "31 windows" in out and "20.8 TFLOP" in out
    code, out, _ = run("info", "--network", "vgg16", "--size", "64", "--depth", "32")
    assert code == 0 and "block5_conv3" in out and "14,714,688" in out and "5 windows of 32" in out
    code, out, _ = run("info", "--model", model)
    assert code == 0 and "16×32×32×4" in out and "3 windows" in out


@pytest.mark.parametrize("name", sorted({*list_networks()} - {"albunet"}))
def test_info_shows_every_network_in_sizes_of_a_recipe_of_its_own(run, name, monkeypatch):
    narrow_networks(monkeypatch)
    code, out, _ = run("info", "--network", name)
    parameters = int(re.search(r"^total .* ([\d,]+) +[\d.]+ GMAC$", out, re.M)[1].replace(",", ""))
    assert code == 0 and parameters > 1e4 and " TFLOP" in out


def test_info_of_patches_says_what_one_takes_as_scans_differ(run):
    code, out, _ = run("info", "--network", "albunet")
    assert code == 0 and "45.33 GMAC" in out and "windows" not in out
    assert "A tile of 24×128×128 voxels takes 0.0907 TFLOP; the number of tiles depends on the scan." in out


@pytest.mark.parametrize("script", sorted(p.name for p in (ROOT / "scripts").glob("*.py")))
def test_every_script_explains_itself(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
    assert not stopped.value.code and "Usage:" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["crossval", "reproduce"])
def test_help_says_which_commands_train_on_every_scan(run, command):
    _, out, _ = run(command, "--help")
    assert "none (train on every scan; only for prepare and train)" in " ".join(re.sub("[│|]", " ", out).split())


def test_help_shows_the_two_masks_of_a_comparison_as_two_words(run):
    code, out, _ = run("compare", "--help")
    assert code == 0 and re.search(r"--masks +BASELINE FOLLOWUP ", out)


def test_version_says_what_a_report_needs(run):
    code, out, _ = run("--version")
    assert code == 0 and out.startswith(f"planar3d {planar3d.__version__}, python 3.") and "keras" in out


def test_reproduce_needs_either_the_demonstration_or_data(run):
    code, _, err = run(command=cli.reproduce)
    assert code == 2 and "--demo" in err


def test_no_name_of_a_file_and_no_text_in_it_controls_the_terminal(capsys, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    named = "a\x1b]0;title\x07\x1b[2Kb"

    def end():
        show(named)
        list_failed({named: named})
        warnings.warn(named, Planar3DWarning, stacklevel=1)
        raise Planar3DError(named)

    with pytest.raises(SystemExit):
        cli.run_in_sentences(end)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\x07" not in out + err
    assert out.count(r"a\x1b]0;title\x07\x1b[2Kb") == 3 and r"a\x1b]0;title\x07\x1b[2Kb" in err
