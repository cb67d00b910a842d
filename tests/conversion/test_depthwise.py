"""Convolutions of each channel by itself, computed on images: the values and gradients of Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from planar3d.conversion.convert import convert
from planar3d.conversion.depthwise import computed_on_images
from planar3d.training.precision import in_precision

KINDS = {
    "same": {"kernel_size": 3, "padding": "same"},
    "five deep": {"kernel_size": 5, "padding": "same"},
    "deeper than its input": {"kernel_size": (9, 1, 3), "padding": "same"},
    "strided": {"kernel_size": 5, "strides": 2, "padding": "valid"},
    "strided, same": {"kernel_size": 3, "strides": 2, "padding": "same"},
    "planar, slices left out": {"kernel_size": (1, 3, 3), "strides": (3, 1, 1), "padding": "same"},
    "two filters a channel": {"kernel_size": (2, 3, 3), "padding": "same", "filters": 12, "activation": "relu"},
}
X = np.random.default_rng(0).standard_normal((2, 7, 6, 8, 6)).astype("float32")


def pair(kind, sizes=X.shape[1:], policy="float32", **changes):
    """A layer as Keras has it, and one of the same weights computed on images."""
    options = {"filters": 6, "groups": 6, "bias_initializer": "ones", "dtype": policy, **KINDS[kind]} | changes
    plain, ours = layers.Conv3D(**options), computed_on_images(layers.Conv3D(**options))
    for layer in (plain, ours):
        layer(keras.Input(sizes))
    ours.set_weights(plain.get_weights())
    return plain, ours


def gradients(layer, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 3)
    return [y, *tape.gradient(loss, [x, layer.kernel.value])]


def in_float64(layer):
    """The layer's arithmetic, group by group."""
    x, kernel, bias = (tf.cast(v, tf.float64) for v in (X, *layer.trainable_variables))
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        groups = zip(*(tf.split(array, layer.groups, axis=-1) for array in (x, kernel)), strict=True)
        window = (1, *layer.strides, 1), layer.padding.upper()
        y = layer.activation(tf.concat([tf.nn.conv3d(*group, *window) for group in groups], axis=-1) + bias)
        loss = tf.reduce_sum(y**3)
    return [y, *tape.gradient(loss, [x, kernel])]


@pytest.mark.parametrize(("policy", "within"), [("float32", 1e-5), ("mixed_bfloat16", 0.03)])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_float64(kind, policy, within):
    _, ours = pair(kind, policy=policy)
    for found, expected in zip(gradients(ours, tf.constant(X)), in_float64(ours), strict=True):
        assert found.shape == expected.shape
        found, expected = (np.asarray(tf.cast(a, tf.float64)) for a in (found, expected))
        assert np.linalg.norm(found - expected) <= within * np.linalg.norm(expected)


def test_what_images_do_not_have_is_left_to_keras():
    for options in ({"groups": 3}, {"strides": (1, 1, 2)}):
        plain, ours = pair("strided", **options)
        np.testing.assert_array_equal(ours(X), plain(X))


@pytest.mark.parametrize("kind", ["strided, same", "five deep"])
def test_sizes_may_be_open(kind):
    plain, ours = pair(kind, (None, None, None, 6))
    inputs = keras.Input((None, None, None, 6))
    network = keras.Model(inputs, ours(inputs))
    traced = tf.function(network, input_signature=[tf.TensorSpec((None, None, None, None, 6))])
    np.testing.assert_allclose(traced(X), plain(X), atol=1e-5)


@pytest.mark.parametrize(("strides", "padding", "taps"), [(1, "same", 4), (3, "valid", 2)])
def test_behind_a_padded_convolution_a_graph_has_the_values_too(strides, padding, taps):
    inputs = keras.Input((9, 9, 3))  # as EfficientNet begins: TensorFlow merges its padding with the convolution
    x = layers.Conv2D(4, 3, use_bias=False)(layers.ZeroPadding2D(1)(inputs))
    flat = keras.Model(inputs, layers.DepthwiseConv2D(3, strides, padding)(x))
    network = convert(flat, "average", kernel_depth=taps, depth_pooling="match")
    volume = np.random.default_rng(1).standard_normal((2, 6, 9, 9, 3)).astype("float32")
    np.testing.assert_allclose(network.predict_on_batch(volume), network(volume), atol=1e-5)


def test_what_convert_makes_is_saved_as_keras_own_layer_and_read_without_this_package(tmp_path):
    inputs = keras.Input((8, 8, 3))
    flat = keras.Model(inputs, layers.DepthwiseConv2D(3, strides=2, padding="same", name="dw")(inputs))
    network = convert(flat, "repeat", depth=6, depth_pooling="match")
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
    layer = loaded.get_layer("dw")
    assert layer.convolution_op.__func__ is layers.Conv3D.convolution_op
    assert keras.saving.serialize_keras_object(layer)["module"] == "keras.layers"
    x = np.random.default_rng(1).standard_normal((1, 6, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(network(x), loaded(x), atol=1e-5)


def test_a_layer_that_is_made_again_in_another_precision_is_computed_on_images_too():
    inputs = keras.Input((6, 8, 8, 6))
    _, ours = pair("same", inputs.shape[1:])
    network = keras.Model(inputs, layers.Conv3D(1, 1, name="head")(ours(inputs)))
    again = in_precision(network, "bf16").get_layer(ours.name)
    assert again.compute_dtype == "bfloat16" and again.convolution_op.func is ours.convolution_op.func
