"""Keras 3 numbers layers and weights by class; read back, they have their own names again."""

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from flat_networks import assert_same
from numpy.testing import assert_array_equal

from planar3d.errors import WeightsError
from planar3d.transfer.array_files import read_directly
from planar3d.transfer.transplant import load_weights


@pytest.fixture(scope="module")
def rich_network():
    """A nested network, wrapped and composite layers, normalization, dropout, and an optimizer with state."""
    layers = keras.layers
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(2, 3, name="block1_conv1"), layers.BatchNormalization(name="bn")],
        name="inner",
    )
    inputs = keras.Input((8, 8, 3))
    x = layers.Dropout(0.1, seed=1)(inner(inputs))
    x = layers.BatchNormalization(scale=False, name="unscaled")(x)
    x = layers.TimeDistributed(layers.Dense(3, name="dense_inside"), name="wrapper")(x)
    x = layers.MultiHeadAttention(1, 2, name="attention")(x, x)
    x = layers.SeparableConv2D(2, 3, name="separable")(x)
    x = layers.Conv2D(4, 3, use_bias=False, name="block1_conv2")(x)
    network = keras.Model(inputs, layers.Conv2DTranspose(2, 2, name="trans6")(x), name="rich")
    network.compile("adam", "mse", metrics=["mae"], run_eagerly=True)
    network.fit(np.ones((1, 8, 8, 3)), np.ones((1, *network.output_shape[1:])), verbose=0)
    return network


def changed(network):
    twin = keras.models.clone_model(network)
    twin.set_weights([w + 1 for w in network.get_weights()])
    return twin


@pytest.mark.parametrize("name", ["rich.weights.h5", "rich.keras", "rich.h5"])
def test_whatever_keras_writes_fills_a_twin_network_entirely(tmp_path, rich_network, name):
    path = tmp_path / name
    (rich_network.save_weights if name == "rich.weights.h5" else rich_network.save)(path)
    twin = changed(rich_network)
    report = load_weights(twin, path, strict=True)
    assert not report.missing and not report.unused
    assert_same(twin, rich_network)


@pytest.mark.parametrize("name", ["rich.weights.h5", "rich.keras"])
def test_kernels_have_the_layers_own_names(tmp_path, rich_network, name):
    path = tmp_path / name
    (rich_network.save_weights if name == "rich.weights.h5" else rich_network.save)(path)
    found = read_directly(path)
    assert_array_equal(found["block1_conv1/kernel"], rich_network.get_layer("inner").get_layer("block1_conv1").kernel)
    assert_array_equal(found["bn/moving_variance"], rich_network.get_layer("inner").get_layer("bn").moving_variance)
    assert_array_equal(found["block1_conv2/kernel"], rich_network.get_layer("block1_conv2").kernel)
    assert_array_equal(found["unscaled/0"], rich_network.get_layer("unscaled").beta)
    assert not [key for key in found if "optimizer" in key or "seed" in key]


@pytest.mark.parametrize("name", ["net.weights.h5", "net.keras"])
@pytest.mark.parametrize(("kind", "given"), [("BatchNormalization", 3), ("LayerNormalization", 1)])
def test_unnamed_weights_of_a_layer_with_fewer_are_not_taken_for_the_first(tmp_path, name, kind, given):
    """Without scale, the first weight is beta, elsewhere gamma."""

    def network(scale):
        layers = [keras.Input((4, 4, 2)), getattr(keras.layers, kind)(scale=scale, name="norm")]
        return keras.Sequential(layers, name="net")

    (network(False).save_weights if name == "net.weights.h5" else network(False).save)(tmp_path / name)
    whole = network(True)
    before = whole.get_weights()
    with pytest.raises(WeightsError, match=f"norm has {given} weights? without names, but net needs {len(before)}"):
        load_weights(whole, tmp_path / name)
    for array, held in zip(before, whole.get_weights(), strict=True):
        assert_array_equal(array, held)
    assert not load_weights(network(False), tmp_path / name, strict=True).unused


def without_names(content):
    """The bytes of a `.weights.h5` as Keras before 3.10 wrote it: no layer's name is stored."""
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "a") as file:

        def strip(name, item):
            item.attrs.pop("name", None)

        file.visititems(strip)
    return buffer.getvalue()


def test_names_of_an_older_keras_file_come_from_its_configuration(tmp_path, rich_network):
    rich_network.save(tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as new, zipfile.ZipFile(tmp_path / "old.keras", "w") as old:
        for member in new.namelist():
            content = new.read(member)
            old.writestr(member, without_names(content) if member.endswith(".h5") else content)
    new, old = read_directly(tmp_path / "new.keras"), read_directly(tmp_path / "old.keras")
    for name in ("block1_conv1/kernel", "bn/gamma", "block1_conv2/kernel", "trans6/bias", "separable/1"):
        assert_array_equal(old[name], new[name])


@keras.saving.register_keras_serializable("tests")
class Scaled(keras.layers.Dense):
    """Stores its weights by name."""

    def save_own_variables(self, store):
        store["kernel"], store["bias"] = self.kernel, self.bias


@pytest.mark.parametrize("name", ["own.weights.h5", "own.keras", "own.h5"])
def test_weights_of_the_network_itself_and_weights_stored_by_name_are_read(tmp_path, name):
    network = keras.Sequential([keras.Input((3,)), Scaled(3, name="scaled")], name="own")
    network.add_weight(shape=(2,), name="factors", initializer="ones")
    (network.save_weights if name == "own.weights.h5" else network.save)(tmp_path / name)
    values = network.get_weights()
    network.set_weights([value + 1 for value in values])
    report = load_weights(network, tmp_path / name, strict=True)
    assert not report.unused
    for found, value in zip(network.weights, values, strict=True):
        assert_array_equal(found, value)


def test_states_of_metrics_and_weights_of_inner_cells_are_told_apart_from_layers(tmp_path):
    both = keras.layers.Bidirectional(keras.layers.LSTM(3, use_bias=False), name="both")
    network = keras.Sequential([keras.Input((4, 8)), both], name="cells")
    network.save(tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as new, zipfile.ZipFile(tmp_path / "old.keras", "w") as old:
        weights = io.BytesIO(without_names(new.read("model.weights.h5")))
        with h5py.File(weights, "a") as file:
            file["metrics/mean/vars/0"] = 1.0
        old.writestr("config.json", new.read("config.json"))
        old.writestr("model.weights.h5", weights.getvalue())
    assert list(read_directly(tmp_path / "old.keras")) == [
        *("both/backward_layer/cell/0", "both/backward_layer/cell/1"),
        *("both/forward_layer/cell/0", "both/forward_layer/cell/1"),
    ]


def test_an_older_weights_file_without_names_is_refused_rather_than_guessed(tmp_path, flat_network):
    flat_network.save_weights(tmp_path / "new.weights.h5")
    old = tmp_path / "old.weights.h5"
    old.write_bytes(without_names((tmp_path / "new.weights.h5").read_bytes()))
    with pytest.raises(WeightsError, match=r"old\.weights\.h5 .*older Keras 3.*\.keras"):
        read_directly(old)


def test_a_configuration_is_read_for_names_and_never_built(tmp_path, flat_network, values):
    flat_network.save(tmp_path / "plain.keras")
    with zipfile.ZipFile(tmp_path / "plain.keras") as plain, zipfile.ZipFile(tmp_path / "odd.keras", "w") as odd:
        config = json.loads(plain.read("config.json"))
        config["module"], config["class_name"] = "os", "system"
        for layer in config["config"]["layers"]:
            layer["module"], layer["registered_name"] = "no.such.module", "Anything"
        odd.writestr("config.json", json.dumps(config))
        odd.writestr("model.weights.h5", without_names(plain.read("model.weights.h5")))
    found = read_directly(tmp_path / "odd.keras")
    assert sorted(found) == sorted(values)
    for name, array in values.items():
        assert_array_equal(found[name], array)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_bfloat16_weights_are_read_exactly(suffix, tmp_path):
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="conv10", dtype="bfloat16")])
    save = network.save_weights if suffix == ".weights.h5" else network.save
    save(path := tmp_path / f"half{suffix}")
    found = read_directly(path)["conv10/kernel"]
    assert found.dtype == np.float32
    assert_array_equal(found, np.asarray(network.weights[0]).astype(np.float32))
