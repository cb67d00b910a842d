"""Convolutions of parts have the values and gradients of Keras's layers on the parts joined."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from planar3d.training.convolutions import Convolution
from planar3d.training.part_layers import PartConvolution, _dilates_natively, is_replaceable

SAME = {"padding": "same"}
KINDS = {
    "planar": lambda: layers.Conv3D(4, (1, 3, 3), activation="relu", **SAME),
    "plain": lambda: layers.Conv3D(4, 3, activation="relu", **SAME),
    "two deep": lambda: layers.Conv3D(4, (2, 3, 3), **SAME),
    "five deep": lambda: layers.Conv3D(4, (5, 3, 3), **SAME),
    "deeper than its input": lambda: layers.Conv3D(4, (9, 1, 3), **SAME),
    "dilated": lambda: layers.Conv3D(4, 3, dilation_rate=(1, 2, 2), activation="relu", **SAME),
    "dilated two deep": lambda: layers.Conv3D(4, (2, 3, 3), dilation_rate=(1, 2, 2), activation="relu", **SAME),
    "without bias": lambda: layers.Conv3D(4, 3, use_bias=False, **SAME),
    "pointwise": lambda: layers.Conv3D(2, 1, activation="sigmoid"),
    "up": lambda: layers.Conv3DTranspose(4, 2, strides=2, **SAME),
    "up without bias": lambda: layers.Conv3DTranspose(4, 2, strides=2, use_bias=False, **SAME),
    "up, ReLU": lambda: layers.Conv3DTranspose(4, (1, 2, 2), strides=(1, 2, 2), activation="relu", **SAME),
}
CHANNELS = (3, 5, 1)
with_onednn = pytest.mark.skipif(not _dilates_natively(), reason="this TensorFlow does not dilate volumes by itself")


def each(*kinds):
    """These kinds, the dilated ones only where they are replaced."""
    return [pytest.param(kind, marks=with_onednn) if "dilated" in kind else kind for kind in kinds]


def built(make, policy="float32", sizes=(4, 6, 8)):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*sizes, sum(CHANNELS)))
    layer = make()
    layer(inputs)
    layer.dtype_policy = policy
    if layer.use_bias:
        layer.bias.assign(np.linspace(-0.5, 0.5, layer.bias.shape[0]))
    return layer


def gradients(layer, joined):
    """Output, and gradients towards the input, the kernel and the bias, from a graph as in training."""

    def differentiate(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            wide = tf.cast(y, "float32")
            loss = tf.reduce_sum(wide**3 + wide)  # whose gradient is not 0 where a ReLU is off
        return [y, *tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])]

    return tf.function(differentiate)(tf.constant(joined))


def input_of(layer, batch=2):
    return np.random.default_rng(0).normal(size=(batch, *layer.input.shape[1:])).astype("float32")


def close(a, b, within):
    return np.linalg.norm(np.asarray(a, "float64") - np.asarray(b, "float64")) <= within * np.linalg.norm(b)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", each(*KINDS))
def test_values_and_gradients_are_those_of_the_layer(kind, batch):
    plain = built(KINDS[kind])
    assert is_replaceable(plain)
    parts = PartConvolution(plain, CHANNELS, [True] * 3)
    x = input_of(plain, batch)
    for a, b in zip(gradients(parts, x), gradients(plain, x), strict=True):
        assert a.shape == b.shape
        assert close(a, b, 1e-5)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("kind", each(*(kind for kind in KINDS if kind != "pointwise" and not kind.startswith("up"))))
def test_kernel_gradients_tap_by_tap_are_those_at_once(kind, batch):
    layer = built(KINDS[kind])
    operation = Convolution(layer.dilation_rate[1:])
    parts = tf.split(input_of(layer, batch), CHANNELS, axis=-1)
    upstream = tf.random.stateless_normal((batch, *layer.output.shape[1:]), seed=(0, 0))
    by_taps, at_once = (way(parts, layer.kernel.shape, upstream) for way in (operation._by_taps, operation._at_once))
    assert close(by_taps, at_once, 1e-5)


@pytest.mark.parametrize("kind", each(*KINDS))
def test_a_part_that_needs_no_gradient_gets_none_and_the_others_theirs(kind):
    plain = built(KINDS[kind])
    parts = PartConvolution(plain, CHANNELS, [True, False, True])
    x = input_of(plain)
    _, expected, *of_variables = gradients(plain, x)
    _, found, *found_of_variables = gradients(parts, x)
    np.testing.assert_array_equal(found[..., 3:8], 0)
    assert close(found, expected * parts.passed_on(), 1e-5)
    for a, b in zip(found_of_variables, of_variables, strict=True):
        assert close(a, b, 1e-5)


@pytest.mark.parametrize("kind", each(*KINDS))
def test_in_bf16_gradients_keep_to_rounding(kind):
    plain = built(KINDS[kind])
    expected = gradients(plain, input_of(plain))
    narrow = PartConvolution(built(KINDS[kind], "mixed_bfloat16"), CHANNELS, [True] * 3)
    y, *found = gradients(narrow, input_of(plain))
    assert y.dtype == tf.bfloat16
    for a, b in zip(found, expected[1:], strict=True):
        assert a.dtype == tf.float32
        assert close(a, b, 0.05)


def test_in_bf16_the_bias_s_gradient_of_many_voxels_keeps_to_rounding():
    # A sum kept in bf16 stays where it is once it is some hundred times the term.
    parts = PartConvolution(built(KINDS["pointwise"], "mixed_bfloat16", sizes=(16, 64, 64)), CHANNELS, [True] * 3)
    parts.replaced.activation = keras.activations.linear

    @tf.function
    def of_bias(x):
        with tf.GradientTape() as tape:
            y = parts(x)
        return tape.gradient(y, parts.replaced.bias.value, output_gradients=tf.ones_like(y))

    found = of_bias(tf.zeros((2, 16, 64, 64, sum(CHANNELS))))
    np.testing.assert_allclose(found, 2 * 16 * 64 * 64, rtol=0.005)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Conv3D(4, 3),
        lambda: layers.Conv3D(4, 3, strides=2, **SAME),
        lambda: layers.Conv3D(3, 3, groups=3, **SAME),
        lambda: layers.Conv3D(4, 3, dilation_rate=(2, 1, 1), **SAME),
        lambda: layers.Conv3D(4, 3, dilation_rate=(1, 4, 4), **SAME),  # six rows are no multiple
        lambda: layers.Conv3D(4, (3, 3, 2), dilation_rate=(1, 1, 2), **SAME),  # padded by one column of the two grids
        lambda: layers.Conv3D(4, 3, activity_regularizer="l2", **SAME),
        lambda: layers.Conv3D(4, 3, data_format="channels_first", **SAME),
        lambda: layers.Conv3DTranspose(4, 3, strides=2, **SAME),
        lambda: layers.Conv3DTranspose(4, 2, strides=2, output_padding=1),
    ],
)
def test_what_would_not_be_exact_is_not_replaced(make):
    assert not is_replaceable(built(make))


def test_a_layer_of_unknown_size_is_not_replaced():
    assert not is_replaceable(built(KINDS["up"], sizes=(4, None, 8)))
