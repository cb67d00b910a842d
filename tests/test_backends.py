"""The same code on Keras' three backends: the same probabilities, the same training, and no TensorFlow where not asked.

Each backend runs in a process of its own, since Keras takes its backend when it is imported.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from narrow_networks import narrow_networks

from planar3d.recipes import PAPER
from planar3d.training.fit import compiled
from planar3d.training.initialization import initial_network

HERE = Path(__file__).parents[1], Path(__file__).parent
RECIPE = PAPER.changed(
    size=16,
    epochs=2,
    batch_size=3,
    learning_rate=1e-2,
    encoder_weights="none",
    decoder_filters=(4, 4, 4, 4),
    bridge_filters=4,
)


def tiny(recipe=RECIPE):
    """The recipe's network with a narrow encoder, which is frozen."""
    with pytest.MonkeyPatch.context() as patch:
        narrow_networks(patch)
        return initial_network(recipe)


SCRIPT = """
import json, sys
from pathlib import Path

folder, backend = Path(sys.argv[1]), sys.argv[2]
if backend != "tensorflow":
    sys.modules["tensorflow"] = None  # importing it is an error

from planar3d.quiet_tensorflow import quiet_tensorflow

quiet_tensorflow()
import keras
import numpy as np
import pytest
from narrow_networks import narrow_networks
from test_backends import tiny
from planar3d.inference.tiled import TiledInference
from planar3d.recipes import Recipe
from planar3d.training.backends import make_deterministic
from planar3d.training.fit import fit
from planar3d.training.gradient_check import guard_precision
from planar3d.training.samples import ScanSamples
from samples_of import split
from planar3d.transfer.transplant import load_weights

assert keras.backend.backend() == backend
patch = pytest.MonkeyPatch()
narrow_networks(patch)
patch.setattr("planar3d.training.precision.bf16_instructions", lambda: "avx512_bf16")
recipe = Recipe.from_json(json.loads((folder / "recipe.json").read_text()))
scans = [np.load(folder / f"{name}.npy") for name in ("voxels", "masks")]


class Killed(Exception):
    pass


def train(name, stop_after=None, recipe=recipe):
    network = tiny(recipe)
    load_weights(network, folder / "start.weights.h5", strict=True)
    training, validation = split(2, 1, len(scans[0][0]), recipe)
    said = []

    def notify(text):
        said.append(text)
        if stop_after and text.startswith(f"epoch {stop_after}/"):
            raise Killed

    guard_precision(network, recipe, len(training), said.append)
    try:
        progress = fit(
            network, network, ScanSamples(*scans, recipe), training, validation, recipe, folder / backend / name, notify
        )
    except Killed:
        return None
    trained = [keras.ops.convert_to_numpy(v) for v in network.trainable_variables]
    return [row["loss"] for row in progress.history], trained, said


make_deterministic()
network = tiny()
load_weights(network, folder / "start.weights.h5", strict=True)
probabilities = TiledInference(network, recipe)(scans[0][0])
np.save(folder / backend / "probabilities.npy", probabilities)

losses, whole, _ = train("whole")
assert train("killed", stop_after=1) is None
again, resumed, said = train("killed")
assert "resuming after epoch 1" in said, said
in_bf16, _, said = train("bf16", recipe=recipe.changed(precision="bf16", epochs=1))
in_float16 = []
if backend != "tensorflow":  # which cannot pool volumes in float16 on a CPU
    in_float16, _, _ = train("float16", recipe=recipe.changed(precision="float16"))
result = {
    "losses": losses,
    "resumed": again,
    "same weights": all(np.array_equal(a, b) for a, b in zip(whole, resumed, strict=True)),
    "bf16 losses": in_bf16,
    "float16 losses": in_float16,
    "guard": [text for text in said if text.startswith("batches of")],
}
(folder / backend / "result.json").write_text(json.dumps(result))
"""


EXPORT = """
import sys

from planar3d.quiet_tensorflow import quiet_tensorflow

quiet_tensorflow()
import keras

from planar3d.inference.export import export_network

inputs = keras.Input((4, 8, 8, 1))
export_network(keras.Model(inputs, keras.layers.Conv3D(1, 3, padding="same")(inputs)), sys.argv[1])
"""


SUMS = """
from planar3d.quiet_tensorflow import quiet_tensorflow

quiet_tensorflow()
import tensorflow as tf
from planar3d.training.backends import make_deterministic

make_deterministic()


@tf.function
def total(x):
    terms = [tf.sin(x[i]) for i in range(5)]
    used_again = [tf.exp(tf.tanh(tf.exp(tf.tanh(tf.exp(tf.tanh(term)))))) for term in terms[:4]]
    return sum(terms), used_again


@tf.function
def gradient(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.tanh(x) + tf.sin(x) * x
    return tape.gradient(y, x)


x = tf.random.stateless_normal((5, 3000), (1, 2))
assert len({total(x)[0].numpy().tobytes() for _ in range(300)}) == 1
assert "AddN" not in {operation.type for operation in gradient.get_concrete_function(x).graph.get_operations()}
"""


def run_script(script, backend, *arguments):
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(map(str, HERE))}
    ended = subprocess.run([sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    keras.utils.set_random_seed(0)
    tiny().save_weights(folder / "start.weights.h5")
    (folder / "recipe.json").write_text(json.dumps(RECIPE.to_json()))
    voxels = np.random.default_rng(0).integers(0, 256, (3, 32, 16, 16, 1), np.uint8)
    np.save(folder / "voxels.npy", voxels)
    np.save(folder / "masks.npy", (voxels[..., 0] > 200).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """Run the script once a backend: its probabilities and what it wrote of its training."""
    done = {}

    def run(backend):
        if backend not in done:
            (folder / backend).mkdir(exist_ok=True)
            run_script(SCRIPT, backend, folder, backend)
            result = json.loads((folder / backend / "result.json").read_text())
            done[backend] = np.load(folder / backend / "probabilities.npy"), result
        return done[backend]

    return run


@pytest.fixture(params=[pytest.param("torch", marks=pytest.mark.torch), "jax"])
def backend(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def test_the_same_weights_give_the_probabilities_of_tensorflow(run, backend):
    expected, found = run("tensorflow")[0], run(backend)[0]
    assert found.dtype == np.float32 and np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_network_is_exported_to_the_formats_that_the_backend_can_write(backend, tmp_path):
    for package in ("openvino", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    run_script(EXPORT, backend, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"openvino", "onnx"}


def test_training_goes_the_way_of_tensorflow(run, backend):
    # Two epochs of two steps each, so that the second loss has seen gradients and Adam's state.
    expected, found = run("tensorflow")[1]["losses"], run(backend)[1]["losses"]
    assert expected[1] < expected[0] - 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_killed_training_ends_as_an_uninterrupted_one(run, backend):
    result = run(backend)[1]
    assert result["resumed"] == result["losses"] and result["same weights"]


def test_bf16_gradients_are_checked_and_training_stays_near_float32(run, backend):
    result = run(backend)[1]
    assert "gradients agree with float32" in result["guard"][0]
    np.testing.assert_allclose(result["bf16 losses"][0], result["losses"][0], atol=1e-2)


def test_the_order_of_tensorflow_s_sums_is_fixed():
    run_script(SUMS, "tensorflow")


def test_in_float16_the_loss_is_scaled_so_that_no_gradient_vanishes():
    trainer = compiled(tiny(), RECIPE.changed(precision="float16"))
    assert isinstance(trainer.optimizer, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(compiled(tiny(), RECIPE).optimizer, keras.optimizers.LossScaleOptimizer)


def test_in_float16_training_stays_near_float32(run, backend):
    result = run(backend)[1]
    np.testing.assert_allclose(result["float16 losses"], result["losses"], atol=1e-2)
    assert result["float16 losses"][1] < result["float16 losses"][0]
