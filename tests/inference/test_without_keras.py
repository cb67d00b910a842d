"""What OpenVINO predicts is predicted without Keras, which takes as long to import as a scan takes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from planar3d import __version__
from planar3d.errors import WeightsError
from planar3d.inference import predictor as module
from planar3d.inference.openvino_engine import multiplies_bf16
from planar3d.networks.registry import recipe_network
from planar3d.networks.weights_file import Model, save_weights
from planar3d.recipes import PAPER
from planar3d.transfer.download import keep_result

TINY = PAPER.changed(size=32, decoder_filters=(4, 4, 4, 4), bridge_filters=4)
pytestmark = pytest.mark.usefixtures("module_narrow")
SCRIPT = """
import sys, threading
from pathlib import Path
from planar3d import cli

package, path = Path(cli.__file__).parent, set()
steps = {{"Model.open", "read_nifti", "EightBit.prepare", "OpenVINOProgram.__call__"}}
steps |= {{"Binary.decode", "Prepared.restore", "Scan.save"}}

def follow(frame, event, argument):
    if event == "call" and frame.f_code.co_qualname in steps:
        while frame:
            file = Path(frame.f_code.co_filename)
            if file.is_relative_to(package):
                path.add(file.relative_to(package).as_posix())
            frame = frame.f_back

sys.argv = ["planar3d", "predict", {scan!r}, "--model", {model!r}, "--out", {out!r}]
threading.setprofile(follow)
sys.setprofile(follow)
try:
    cli.main()
except SystemExit as ended:
    assert not ended.code
print("path:", *sorted(path))
print("loaded:", sorted({{"keras", "tensorflow"}} & set(sys.modules)))
"""
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    keras.utils.set_random_seed(0)
    return save_weights(recipe_network(TINY), tmp_path_factory.mktemp("model") / "tiny.weights.h5", TINY)


@pytest.fixture
def older(file, tmp_path, monkeypatch):
    """The file without its description, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "older.weights.h5"
    path.write_bytes(file.read_bytes())
    with h5py.File(path, "a") as content:
        del content["planar3d_description"]
    return path


def test_predict_loads_neither_keras_nor_tensorflow_and_takes_the_documented_path(file, tmp_path, write_nifti):
    pytest.importorskip("openvino")
    voxels = np.random.default_rng(0).integers(0, 500, (20, 24, 24)).astype(np.float32)
    script = SCRIPT.format(scan=str(write_nifti(voxels)), model=str(file), out=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["loaded: []"], done.stdout + done.stderr
    path = set(done.stdout.splitlines()[-2].split()[1:])
    page = (DOCS / "explanation/architecture.md").read_text().partition("## From command to mask")[2].partition("##")[0]
    documented = set(re.findall(r"`([\w/]+\.py)`", page))
    varying = {name for name in path | documented if name.startswith("scans/preparation/")}
    if not multiplies_bf16():  # so nothing is compared with float32
        varying.add("inference/agreement.py")
    assert path - varying == documented - varying
    assert len(path) < 25
    record = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert record["how"]["description"].startswith("shared on OpenVINO")


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_runtime_reports_nothing_to_its_makers(runtime, tmp_path, monkeypatch):
    pytest.importorskip(runtime)
    for name in ("CI", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    script = f"import sys, planar3d.inference, {runtime}; assert not sys.modules['openvino_telemetry']"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not [*tmp_path.iterdir()]


def test_an_older_file_s_network_is_built_once_and_described_in_the_cache(older, tmp_path):
    built = []

    def build():
        built.append(1)
        return Model.open(older).network()

    first = Model.open(older).description(build)
    again = Model.open(older).description(build)
    assert built == [1] and [layer.name for layer in again.layers] == [layer.name for layer in first.layers]
    np.testing.assert_array_equal(again.layers[0].kernel, first.layers[0].kernel)
    assert len(list((tmp_path / "cache/planar3d/descriptions").iterdir())) == 1


@pytest.mark.parametrize("changes", [{"version": 0}, {"layers": [{"kind": "LSTM"}]}, {"input": [16, 32, 32, 1]}])
def test_a_description_that_cannot_be_used_leaves_the_network_to_keras(older, file, tmp_path, changes):
    with h5py.File(file) as content:
        said = json.loads(content["planar3d_description"][()].tobytes())
    keep_result("descriptions", {"weights": Model.open(older).sha256, "planar3d": __version__}, said | changes)
    with pytest.raises(ZeroDivisionError):
        Model.open(older).description(lambda: 1 // 0)  # in place of Keras


@pytest.mark.parametrize("said", [None, "0" * 64])
def test_a_description_that_the_card_does_not_vouch_for_is_not_used(file, tmp_path, monkeypatch, said):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "other.weights.h5"
    path.write_bytes(file.read_bytes())
    Model.open(path).description(lambda: 1 // 0)
    with h5py.File(path, "a") as content:
        card = json.loads(content.attrs["planar3d_card"])
        del card["description_sha256"]
        content.attrs["planar3d_card"] = json.dumps(card | ({"description_sha256": said} if said else {}))
    with pytest.raises(ZeroDivisionError):
        Model.open(path).description(lambda: 1 // 0)


def test_a_recipe_of_another_network_is_refused_as_ever(file):
    with pytest.raises(WeightsError, match="was trained with bridge_filters=4"):
        Model.open(file, TINY.changed(bridge_filters=8)).description()


@pytest.mark.parametrize("driver, gpu, asked", [(False, True, False), (True, True, True), (True, False, True)])
def test_keras_is_asked_for_a_gpu_where_there_is_a_driver(monkeypatch, driver, gpu, asked):
    from planar3d.training import backends

    questions = []
    monkeypatch.setattr(module, "is_installed", lambda *packages: True)
    monkeypatch.setattr(module, "may_have_gpu", lambda: driver)
    monkeypatch.setattr(backends, "on_gpu", lambda: questions.append(1) or gpu)
    assert module._openvino_is_faster() == (not (driver and gpu)) and bool(questions) == asked
