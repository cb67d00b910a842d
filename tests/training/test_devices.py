"""Several devices give the gradients, and the training, of one; shown with two logical devices on a CPU.

Each backend runs in a process of its own, since devices are divided before it starts.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from planar3d.errors import RecipeError, RunError
from planar3d.recipes import PAPER
from planar3d.training import devices
from planar3d.training.devices import Devices, choose_devices
from planar3d.training.losses import BceMinusDice, CrossEntropyAndDice, Loss, MultipleDice
from planar3d.training.settings import Adam, Nadam

HERE = Path(__file__).parents[2], Path(__file__).parent, Path(__file__).parents[1]


class Every(Loss):
    """The mean of all losses."""

    losses = (
        BceMinusDice(),
        BceMinusDice(dice_smoothing=1.0),
        MultipleDice(over="sample", dice_smoothing=1.0),
        CrossEntropyAndDice(denominator="squares"),
    )

    def __call__(self, y_true, y_pred):
        return sum(loss(y_true, y_pred) for loss in self.losses) / len(self.losses)

    def dice(self, y_true, y_pred):
        return sum(loss.dice(y_true, y_pred) for loss in self.losses) / len(self.losses)


RECIPE = PAPER.changed(size=16, epochs=2, batch_size=4, learning_rate=1e-2, shuffle="every epoch")
AHEAD = RECIPE.changed(optimizer=Nadam(clip_norm=0.1, lookahead_steps=2, epsilon=1e-2))
# Nearly plain descent, by a loss that has no use for logits.
HALF = RECIPE.changed(precision="float16", learning_rate=1.0, optimizer=Adam(epsilon=1.0), loss=MultipleDice())


SHARES = set()  # sizes of the batches that a device computes


class Block(keras.layers.Layer):
    """Batch normalization within another layer, which also has a weight that no output depends on."""

    def __init__(self, **options):
        super().__init__(**options)
        self.norm = keras.layers.BatchNormalization(momentum=0.9, name="inner")

    def build(self, shape):
        self.norm.build(shape)
        self.unused = self.add_weight(shape=(2,), name="unused")

    def call(self, x, training=None):
        SHARES.add(x.shape[0])
        return self.norm(x, training=training)


class Added(keras.layers.Layer):
    """Losses that follow from the whole batch only: a sum, and one for each sample."""

    def call(self, x):
        self.add_loss([keras.ops.sum(x**2) / 1000, keras.ops.mean(x, axis=(1, 2, 3, 4)) / 10])
        return x


def squared_means(x):
    return keras.ops.sum(keras.ops.mean(x, axis=(0, 1, 2, 3)) ** 2)


def small(chance=0.0, shape=(4, 8, 8, 3)):
    """A network whose training changes more than its trainable weights; smooth, so that rounding stays small."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape, name="input")
    skip = keras.layers.Conv3D(3, (1, 3, 3), padding="same", activation="softplus", name="first")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9, name="norm")(skip)
    x = Block(name="block")(x)
    x = keras.layers.Dropout(chance, name="drop")(x)
    x = keras.layers.Concatenate(name="joined")([x, skip])
    x = keras.layers.Conv3D(2, 3, padding="same", activation="softplus", kernel_regularizer="l2", name="second")(x)
    return keras.Model(inputs, keras.layers.Conv3D(1, 1, activation="sigmoid", dtype="float32", name="conv10")(x))


def adding():
    """A network whose layers add losses."""
    network = small()
    x = keras.layers.Conv3D(2, 3, padding="same", activity_regularizer=squared_means, name="third")(network.output)
    x = Added(name="added")(x)
    return keras.Model(network.input, keras.layers.Conv3D(1, 1, activation="sigmoid", name="conv11")(x))


def narrow():
    """A network that TensorFlow computes in float16 on a CPU too, since it does not pool."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 8, 8, 3), dtype="float32", name="input")
    options = {"activation": "softplus", "kernel_regularizer": keras.regularizers.L2(0.1), "dtype": "mixed_float16"}
    x = keras.layers.Conv3D(2, 3, padding="same", name="first", **options)(inputs)
    x = keras.layers.BatchNormalization(dtype="mixed_float16", name="norm")(x)
    return keras.Model(inputs, keras.layers.Conv3D(1, 1, activation="sigmoid", dtype="float32", name="conv10")(x))


SCRIPT = """
import json, shutil, sys
from pathlib import Path

from planar3d.quiet_tensorflow import quiet_tensorflow

quiet_tensorflow()
import logical_devices
import keras
import numpy as np

folder = Path(sys.argv[1])
from test_devices import AHEAD, HALF, RECIPE, SHARES, Every, adding, narrow, small
import planar3d.training.fit
from planar3d.training.devices import choose_devices
from planar3d.training.fit import compiled, fit
from planar3d.training.precision import built_with
from planar3d.training.samples import ScanSamples
from planar3d.training.trainer import trainer_of
from samples_of import split

# The small network is none of the recipe's, so its best weights are kept without the recipe.
planar3d.training.fit.save_weights = lambda network, path, *_: network.save_weights(path)
rng = np.random.default_rng(0)
voxels = (rng.normal(size=(4, 4, 8, 8, 3)) + 0.5 * rng.normal(size=(4, 1, 1, 1, 3))).astype(np.float32)
masks = (voxels[..., :1] > np.reshape([0.5, 1, 9, 2], (4, 1, 1, 1, 1))).astype(np.uint8)  # the third is empty
numpy = keras.ops.convert_to_numpy


def difference(a, b):
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


def chosen_devices(asked, recipe=RECIPE):
    # One device computes operation by operation, which takes less time than to trace a few steps; several cannot.
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(asked is None)
    return choose_devices(asked, recipe)


def gradients(asked, make=small):
    # A step of plain descent changes weights by their gradients times the rate, here so large that nothing is lost.
    chosen = chosen_devices(asked)
    with chosen.scope():
        network = make()
        twin = trainer_of(network)
        trainer = keras.Model(twin.input, twin.output)
        trainer.compile(keras.optimizers.SGD(100.0), loss=Every(), metrics=[Every().dice])
        trainer.optimizer.build(trainer.trainable_variables)
    steps, found, statistics, said = chosen.steps(trainer), [], [], []
    start = network.get_weights()
    SHARES.clear()
    for batch in (4, 3):
        network.set_weights(start)
        said.append(steps.test_on_batch(voxels[:batch], masks[:batch], return_dict=True))
        before = [numpy(v) for v in network.trainable_variables]
        said.append(steps.train_on_batch(voxels[:batch], masks[:batch], return_dict=True))
        found += [(a - numpy(v)) / 100 for a, v in zip(before, network.trainable_variables, strict=True)]
        statistics += [numpy(v) for v in network.non_trainable_variables if "seed" not in v.path]
    return found, statistics, [np.array([row[name] for name in ("loss", "dice")], float) for row in said]


def steps_ahead(asked):
    # Clipping, momenta that are shared by all weights, and slow weights.
    chosen = chosen_devices(asked, AHEAD)
    with chosen.scope():
        network = small()
        trainer = compiled(network, AHEAD)
    steps = chosen.steps(trainer)
    for _ in range(3):
        steps.train_on_batch(voxels, masks, return_dict=True)
    return [numpy(v) for v in (*network.weights, *trainer.optimizer.variables)]


def steps_in_half(asked):
    # A scale at which gradients overflow, so that the step is left out; then one at which they do not.
    chosen = chosen_devices(asked)
    with chosen.scope():
        network = narrow()
        trainer = compiled(network, HALF)
    assert network.layers[1].compute_dtype == "float16"
    steps, optimizer, states = chosen.steps(trainer), trainer.optimizer, []
    states.append([numpy(v) for v in network.trainable_variables])
    for scale in (2.0**40, 2.0**10):
        optimizer.dynamic_scale.assign(scale)
        steps.train_on_batch(voxels, masks, return_dict=True)
        states.append([numpy(v) for v in network.trainable_variables])
    left_out, moved = difference(states[0], states[1]), difference(states[1], states[2])
    return [float(numpy(optimizer.dynamic_scale)), int(numpy(optimizer.iterations)), left_out], moved, states[2]


scans = [np.random.default_rng(1).integers(0, 256, (4, 32, 16, 16, 1), np.uint8)]
scans.append((scans[0][..., 0] > 200).astype(np.uint8))


def train(name, notify=lambda text: None, asked="0,1"):
    chosen, into = chosen_devices(asked), folder / name
    into.mkdir(exist_ok=True)
    with chosen.scope():
        network = small(0.3, (16, 16, 16, 3))
    training, validation = split(3, 1, len(scans[0][0]), RECIPE)
    assert len(training) % 4 and len(training) % 2  # whose last batch does not divide
    twin, samples = trainer_of(network), ScanSamples(*scans, RECIPE)
    progress = fit(network, twin, samples, training, validation, RECIPE, into, notify, devices=chosen)
    rows = [[row[k] for k in ("loss", "dice", "val_loss", "val_dice")] for row in progress.history]
    seeds = [v.value for v in network.variables if v.path.endswith("seed_generator_state")]
    drawn = [tuple(numpy(copy)) for seed in seeds for copy in getattr(seed, "values", [seed])]
    return rows, [numpy(v) for v in network.variables], len(drawn) == len(set(drawn)) > 0


def as_killed(text):
    # What a run that is killed after its first epoch leaves.
    if text.startswith("epoch 1/"):
        for name in ("killed", "moved"):
            shutil.copytree(folder / "whole", folder / name)


def compared(make):
    one, two = gradients(None, make), gradients("0,1", make)
    largest = max(float(np.abs(x).max()) for x in one[0])
    kernels = difference(*([x for x in found[0] if x.ndim > 1] for found in (one, two)))
    return {"largest": largest, "kernels": kernels, "of": [difference(a, b) for a, b in zip(one, two, strict=True)]}


of_small = compared(small)
# JAX computes as if the batch was not divided.
assert SHARES == ({2, 3} if keras.backend.backend() == "tensorflow" else {4, 3}), SHARES
(of_one, moved, weights), (of_two, _, weights_of_two) = steps_in_half(None), steps_in_half("0,1")
whole = train("whole", as_killed)
said = []
resumed = train("killed", said.append)
moved_on = train("moved", said.append, None)[0]
with choose_devices("1", RECIPE).scope():
    value = keras.Variable(0.0).value
    second = value.device if keras.backend.backend() == "tensorflow" else str(value.devices())
(folder / "result.json").write_text(json.dumps({
    "small": of_small,
    "adding": compared(adding),
    "in bf16": compared(lambda: built_with("bf16", small)),
    "ahead": difference(steps_ahead(None), steps_ahead("all")),
    "in half": [of_one, of_two, moved, difference(weights, weights_of_two)],
    "same rows": whole[0] == resumed[0],
    "same variables": all(np.array_equal(a, b) for a, b in zip(whole[1], resumed[1], strict=True)),
    "epochs": len(whole[0]),
    "resumed": said[0],
    "second": second,
    "apart": whole[2],
    "moved": [moved_on[0] == whole[0][0], len(moved_on), np.isfinite(moved_on).all().item()],
}))
"""


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def result(request, tmp_path_factory):
    backend = request.param
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    folder = tmp_path_factory.mktemp(backend)
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "LOGICAL_DEVICES": "2",
        "PYTHONPATH": os.pathsep.join([*map(str, HERE), os.environ.get("PYTHONPATH", "")]),
    }
    ended = subprocess.run([sys.executable, "-c", SCRIPT, folder], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads((folder / "result.json").read_text())


def test_two_devices_give_the_gradients_and_batch_statistics_of_one_for_every_loss(result):
    assert max(result["small"]["of"]) < 1e-6 < 0.1 < result["small"]["largest"]


def test_two_devices_give_the_losses_that_layers_add_as_one(result):
    assert max(result["adding"]["of"]) < 1e-6 < 0.1 < result["adding"]["largest"]


def test_in_bf16_two_devices_differ_from_one_by_rounding(result):
    in_bf16 = result["in bf16"]  # in which JAX also sums the gradients of biases, so only those of kernels agree
    assert in_bf16["kernels"] < 0.01 * in_bf16["largest"] and max(in_bf16["of"][1:]) < 1e-3


def test_clipping_momenta_and_slow_weights_are_those_of_one_device(result):
    assert result["ahead"] < 1e-4


def test_in_float16_a_step_that_overflows_is_left_out_on_all_devices_and_others_are_those_of_one(result):
    of_one, of_two, moved, apart = result["in half"]
    assert of_one == of_two == [2.0**10, 1, 0.0]
    assert apart < 0.01 * moved and moved > 1e-3


def test_a_killed_run_on_two_devices_ends_as_an_uninterrupted_one(result):
    assert result["same rows"] and result["same variables"] and result["epochs"] == 2
    assert result["resumed"] == "resuming after epoch 1"


def test_a_killed_run_on_two_devices_ends_on_one(result):
    assert result["moved"] == [True, 2, True]


def test_random_layers_draw_other_numbers_on_each_device(result):
    assert result["apart"]


def test_a_number_is_that_of_the_device(result):
    assert result["second"].rstrip("})").endswith("1")


def test_the_default_is_the_backend_s_own_device():
    assert type(choose_devices(None, RECIPE)) is Devices


@pytest.mark.parametrize("asked", ["0,2", "0,0", "two", "0;1", ""])
def test_devices_that_are_not_there_are_refused(asked, monkeypatch):
    for there, sentence in (
        (["cpu:0"], r"finds 1 device here \(cpu:0\)\. Omit --devices\.$"),
        (["gpu:0", "gpu:1"], r"finds 2 devices .* Omit --devices, or give numbers from 0 to 1, each once, or all\.$"),
    ):
        monkeypatch.setattr(keras.distribution, "list_devices", lambda there=there: there)
        with pytest.raises(RunError, match=sentence):
            choose_devices(asked, RECIPE)


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    monkeypatch.setattr(devices.keras.distribution, "list_devices", lambda: ["gpu:0", "gpu:1", "gpu:2"])
    with pytest.raises(RecipeError, match=r"batch_size=4 is not a multiple of 3, .*--set batch_size=6"):
        choose_devices("all", RECIPE)


def test_a_precision_that_the_devices_lack_is_refused(monkeypatch):
    monkeypatch.setattr("planar3d.training.precision.on_gpu", lambda: False)
    with pytest.raises(RecipeError, match="precision='float16' needs a GPU"):
        choose_devices(None, RECIPE.changed(precision="float16"))


def test_a_backend_of_one_device_says_so(monkeypatch):
    monkeypatch.setattr(devices.keras.backend, "backend", lambda: "torch")
    with pytest.raises(RunError, match="on torch, a fold is trained on one device"):
        choose_devices("0,1", RECIPE)


def test_a_backend_that_does_not_train_says_so(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(RunError, match="backend openvino, which does not train"):
        choose_devices(None, RECIPE)
