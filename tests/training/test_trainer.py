"""The trainer is the network, but for rounding and for time."""

import keras
import narrow_encoder
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from planar3d.recipes import PAPER
from planar3d.training.features import decoder_of, encoder_of
from planar3d.training.gradient_check import guard_gradients
from planar3d.training.initialization import initial_network
from planar3d.training.losses import BceMinusDice
from planar3d.training.part_layers import Kept, PartConvolution, _dilates_natively
from planar3d.training.trainer import trainer_of

pytestmark = pytest.mark.skipif(bool(tf.config.get_visible_devices("GPU")), reason="what happens on a CPU")

# Elsewhere dilated convolutions stay as they are.
with_onednn = pytest.mark.skipif(not _dilates_natively(), reason="this TensorFlow does not dilate volumes by itself")

TINY = PAPER.changed(
    **{"size": 32, "encoder": narrow_encoder.NAME, "encoder_weights": "none"},
    **{"decoder_filters": (4, 4), "bridge_filters": 4},
)
FROZEN = [("encoder",), ("encoder", "bridge"), ("conv10",), ("encoder", "conv62", "trans7")]


@pytest.fixture(scope="module")
def windows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 16, 32, 32, 3)).astype("float32"), rng.random((2, 16, 32, 32, 1)) < 0.1


def gradients(model, variables, windows):
    @tf.function
    def differentiate(x, y):
        with tf.GradientTape() as tape:
            loss = BceMinusDice()(y, model(x, training=True))
        return loss, tape.gradient(loss, [variable.value for variable in variables])

    return differentiate(*windows)


def replaced(trainer):
    return {layer.name: layer for layer in trainer.layers if isinstance(layer, PartConvolution)}


@pytest.mark.parametrize("frozen", FROZEN)
def test_it_has_the_network_s_values_gradients_and_variables(windows, frozen, untraced):
    network = initial_network(TINY.changed(frozen=frozen))
    trainer = trainer_of(network)
    np.testing.assert_allclose(trainer(windows[0]), network(windows[0]), rtol=1e-5, atol=1e-6)
    assert {id(v) for v in trainer.trainable_variables} == {id(v) for v in network.trainable_variables}
    assert {id(v) for v in trainer.variables} == {id(v) for v in network.variables}
    loss, expected = gradients(network, network.trainable_variables, windows)
    again, found = gradients(trainer, network.trainable_variables, windows)
    assert float(again) == pytest.approx(float(loss), rel=1e-6)
    for variable, a, b in zip(network.trainable_variables, found, expected, strict=True):
        # Through so many layers the rounding of float32 adds up; by itself each layer keeps to 1e-5.
        assert np.linalg.norm(a - b) < 1e-3 * np.linalg.norm(b), variable.path


@pytest.mark.parametrize("frozen", FROZEN)
def test_layer_by_layer_gradients_agree_on_the_network_s_own_features(windows, frozen):
    from planar3d.training.backends import layer_gradients

    network = initial_network(TINY.changed(frozen=frozen))
    parts = replaced(trainer_of(network))
    assert parts
    features = keras.Model(network.input, [network.get_layer(name).input for name in parts])(windows[0])
    for (name, layer), x in zip(parts.items(), features, strict=True):
        plain = network.get_layer(name)
        y = plain(x)
        # A ReLU of nearly zero may be on in one and off in the other, as they add in another order.
        upstream = tf.random.stateless_normal(y.shape, seed=(0, 1)) * tf.cast(tf.abs(y) > 1e-4, tf.float32)
        (kernel, towards), (expected, of_input) = (layer_gradients(one, x, upstream) for one in (layer, plain))
        assert np.linalg.norm(kernel - expected) < 1e-4 * np.linalg.norm(expected), name
        if towards is None:
            assert not layer.passed_on().any()
        else:
            of_input = of_input * layer.passed_on()
            assert np.linalg.norm(towards - of_input) < 1e-4 * np.linalg.norm(of_input), name


@with_onednn
def test_gradients_pass_only_where_something_trains():
    trainer = trainer_of(initial_network(TINY))
    parts = replaced(trainer)
    levels = [(f"trans{n}", f"conv{n}1", f"conv{n}2") for n in (6, 7)]
    assert set(parts) == {"conv51", "conv52", "conv10"}.union(*levels)
    assert not parts["conv51"].passed_on().any()
    # The encoder's features are skipped, wherever a concatenation carries them.
    assert parts["trans6"].needed == [False, True]
    assert parts["conv71"].needed == [True, False]
    assert parts["conv10"].needed == [True, False, True]
    everything = replaced(trainer_of(initial_network(TINY.changed(frozen=("conv10",)))))
    assert everything["conv71"].needed == [True, True]
    assert not everything["block1_conv1"].passed_on().any() and everything["block1_conv2"].passed_on().all()


@with_onednn
def test_no_concatenation_of_the_decoder_is_made():
    assert not [
        layer.name for layer in trainer_of(initial_network(TINY)).layers if isinstance(layer, layers.Concatenate)
    ]


def test_the_network_s_graph_is_left_as_it_is(windows):
    network = initial_network(TINY)
    nodes = [len(layer._inbound_nodes) for layer in network.layers]
    names = [layer.name for layer in network.layers]
    trainer_of(network)
    assert [len(layer._inbound_nodes) for layer in network.layers] == nodes
    assert [layer.name for layer in network.layers] == names
    np.testing.assert_array_equal(
        decoder_of(network, TINY)(encoder_of(network, TINY)(windows[0])),
        network(windows[0]),
        err_msg="the parts of it",
    )


def test_what_it_trained_is_saved_and_loaded_by_the_network(windows, tmp_path, untraced):
    network = initial_network(TINY)
    trainer = trainer_of(network)
    trainer.compile(keras.optimizers.SGD(0.1), loss=BceMinusDice(), jit_compile=False)
    before = network.get_layer("conv71").kernel.numpy()
    trainer.train_on_batch(*windows)
    assert not np.array_equal(network.get_layer("conv71").kernel, before)
    network.save_weights(tmp_path / "trained.weights.h5")
    other = initial_network(TINY.changed(seed=1))
    trainer_of(other)
    other.load_weights(tmp_path / "trained.weights.h5")
    np.testing.assert_array_equal(other(windows[0]), network(windows[0]))


@with_onednn
def test_the_decoder_behind_cached_features_is_replaced_too(windows):
    network = initial_network(TINY)
    decoder = decoder_of(network, TINY)
    trainer = trainer_of(decoder)
    assert len(replaced(trainer)) == 9
    features = encoder_of(network, TINY)(windows[0])
    np.testing.assert_allclose(trainer(features), decoder(features), rtol=1e-5, atol=1e-6)


@with_onednn
def test_the_guard_compares_what_the_trainer_computes(with_bf16):
    trainer = trainer_of(initial_network(TINY.changed(precision="bf16")))
    check = guard_gradients(trainer, 2)
    # The head is not among them: it computes in float32.
    assert set(check.errors) == set(replaced(trainer)) - {"conv10"}
    assert all(max(pair) <= 0.01 for name, pair in check.errors.items() if name not in check.kept_float32)
    assert check.errors["conv51"][1] == 0.0  # no gradient is asked for towards the encoder


def test_a_layer_whose_gradient_is_wrong_computes_in_float32(windows, monkeypatch, with_bf16):
    trainer = trainer_of(initial_network(TINY.changed(precision="bf16")))
    layer = replaced(trainer)["conv72"]
    monkeypatch.setattr("planar3d.training.gradient_check.TOLERANCE", 0.0)  # no rounded gradient is without error
    assert "conv72" in guard_gradients(trainer, 1).kept_float32
    assert layer.compute_dtype == "float32"
    assert trainer(windows[0]).dtype == tf.float32


def test_layers_of_other_kinds_stay_as_they_are(windows):
    class Own(layers.Conv3D):
        pass

    inputs = keras.Input((4, 8, 8, 3))
    x = layers.Conv3D(4, 3, padding="same", name="first")(inputs)
    y = layers.MaxPooling3D(1, name="pool")(x)
    z = Own(4, 3, padding="same", name="own")(keras.ops.tanh(y))
    joined = layers.Concatenate(name="joined")([x, z])
    outputs = layers.Conv3D(1, 1, name="head")(layers.LayerNormalization(name="norm")(joined))
    network = keras.Model(inputs, outputs)
    trainer = trainer_of(network)
    kinds = {layer.name: type(layer) for layer in trainer.layers}
    assert kinds["first"] is kinds["head"] is PartConvolution
    assert kinds["pool"] is kinds["own"] is kinds["norm"] is Kept
    values = np.random.default_rng(0).normal(size=(2, 4, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(trainer(values), network(values), rtol=1e-5, atol=1e-5)
    y = np.zeros((2, 4, 8, 8, 1), "float32")

    def of_kernels(model):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(values) - y) ** 2)
        return tape.gradient(loss, [v.value for v in network.trainable_variables])

    for a, b in zip(tf.function(of_kernels)(trainer), tf.function(of_kernels)(network), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_parts_are_of_channels_alone_and_a_frozen_layer_passes_gradients_to_those_that_need_them():
    inputs = keras.Input((2, 4, 4, 3))
    first = layers.Conv3D(3, 1, name="first")(inputs)
    joined = layers.Concatenate(axis=4)([first, inputs])
    frozen = layers.Conv3D(3, 1, trainable=False, name="frozen")(joined)
    wide = layers.Concatenate(axis=3)([frozen, first])
    network = keras.Model(inputs, layers.Conv3D(1, 1, name="head")(wide))
    trainer = trainer_of(network)
    needed = {name: layer.needed for name, layer in replaced(trainer).items()}
    assert needed == {"first": [False], "frozen": [True, False], "head": [True]}
    values = np.random.default_rng(0).normal(size=(1, 2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(trainer(values), network(values), rtol=1e-5, atol=1e-5)


def test_a_network_that_applies_a_layer_twice_is_its_own_trainer():
    inputs = keras.Input((4, 8, 8, 3))
    layer = layers.Conv3D(3, 3, padding="same")
    network = keras.Model(inputs, layer(layer(inputs)))
    assert trainer_of(network) is network


def test_a_concatenation_that_several_layers_read_is_made_once_in_its_own_type_and_outputs_keep_their_names():
    inputs = keras.Input((2, 4, 4, 3))
    options = {"dtype": "mixed_bfloat16"}
    both = [layers.Conv3D(3, 1, name=name, **options)(inputs) for name in ("first", "second")]
    joined = layers.Concatenate(**options)(both)
    read = [layers.AveragePooling3D(1, **options)(joined), layers.LayerNormalization(**options)(joined)]
    network = keras.Model(inputs, {"joined": joined, "read": layers.Add(**options)(read)})
    trainer = trainer_of(network)
    assert len([layer for layer in trainer.layers if isinstance(layer, layers.Concatenate)]) == 1
    values = np.random.default_rng(0).normal(size=(1, 2, 4, 4, 3)).astype("float32")
    found, expected = trainer(values), network(values)
    assert {name: x.dtype for name, x in found.items()} == dict.fromkeys(expected, tf.bfloat16)
    for name in expected:
        np.testing.assert_allclose(tf.cast(found[name], "float32"), tf.cast(expected[name], "float32"), atol=0.05)
    assert trainer_of(keras.Model(inputs, joined)).output.dtype == "bfloat16"


def test_on_a_gpu_a_network_is_its_own_trainer(monkeypatch):
    inputs = keras.Input((4, 8, 8, 3))
    network = keras.Model(inputs, layers.Conv3D(3, 3, padding="same")(inputs))
    assert trainer_of(network) is not network
    monkeypatch.setattr("planar3d.training.trainer.on_gpu", lambda: True)
    assert trainer_of(network) is network
