"""Functions and objects of a 2D layer are kept themselves, and refused where they do something else in 3D."""

import functools

import keras
import numpy as np
import pytest
from flat_networks import by_slice, network_of, randomized, run, volume
from keras import layers, ops
from numpy.testing import assert_allclose

from planar3d.conversion.convert import convert
from planar3d.errors import ConversionError


def relu6(x):
    return 0.5 * x


def gelu(x):
    return x * x


def softmax(x):
    return 3 * x


@keras.saving.register_keras_serializable(package="tests")
def leaky_relu(x):
    return ops.maximum(x, 0.7 * x)


class Doubled:
    def __call__(self, x):
        return 2 * x


FACTORS = np.arange(5, dtype="float32")
FUNCTIONS = {
    "named as Keras' relu6": relu6,
    "named as Keras' gelu": gelu,
    "named as Keras' softmax": softmax,
    "registered": leaky_relu,
    "lambda": lambda x: 0.3 * x,
    "closure over channels": lambda x: x * FACTORS,
    "partial": functools.partial(ops.leaky_relu, negative_slope=0.7),
    "object": Doubled(),
    "keras.ops, not a number below 0": ops.sqrt,
    "channels": lambda x: ops.softmax(x, axis=-1),
    "layer": layers.LeakyReLU(0.8),
}
LAYERS = {
    "Conv2D": lambda function: layers.Conv2D(5, 3, activation=function),
    "DepthwiseConv2D": lambda function: layers.DepthwiseConv2D(3, activation=function),
    "SeparableConv2D": lambda function: layers.SeparableConv2D(5, 3, activation=function),
    "Conv2DTranspose": lambda function: layers.Conv2DTranspose(5, 3, strides=2, activation=function),
    "Dense": lambda function: layers.Dense(5, activation=function),
    "Activation": lambda function: layers.Activation(function),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("made", LAYERS.values(), ids=LAYERS)
def test_a_function_of_one_s_own_is_kept_whatever_its_name(made, function):
    flat, voxels = network_of(made(function), shape=(8, 8, 5)), volume(1, 3, 8, 8, 5)
    volumes = convert(flat)
    assert any(getattr(layer, "activation", None) is function for layer in volumes.layers)
    assert_allclose(run(volumes, voxels), by_slice(flat, voxels), rtol=1e-4, atol=1e-5)


def test_acs_convolutions_keep_functions_and_objects():
    regularizer, constraint = keras.regularizers.L2(0.1), keras.constraints.MaxNorm(axis=[0, 1, 2])
    flat = network_of(
        layers.Conv2D(5, 3, activation=relu6, kernel_regularizer=regularizer, kernel_constraint=constraint, name="conv")
    )
    made = convert(flat, "acs").get_layer("conv")
    assert made.activation is relu6 and made.kernel_regularizer is regularizer and made.kernel_constraint is constraint


def turned(x):
    return x[:, ::-1]


FOREIGN = {
    "rows turned": turned,
    "softmax of rows": lambda x: ops.softmax(x, axis=1),
    "the largest of all": lambda x: x / ops.max(ops.abs(x)),
    "random": lambda x: x + keras.random.normal(ops.shape(x)),
    "one rank only": lambda x: ops.softmax(x, axis=3),
}


@pytest.mark.parametrize("function", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("made", LAYERS.values(), ids=LAYERS)
def test_a_function_that_does_something_else_in_3d_is_refused_by_name(made, function):
    flat = network_of(made(function), shape=(8, 8, 5))
    with pytest.raises(ConversionError, match=rf"{flat.layers[1].name} .*applies '.*on each slice.*axis=-1"):
        convert(flat)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    "made", [lambda **how: layers.Conv2D(5, 3, padding="same", **how), functools.partial(layers.Dense, 5)]
)
def test_an_activation_that_is_a_layer_with_weights_is_converted_with_them(made, axis):
    flat = network_of(made(activation=layers.PReLU(), name="first"))
    with pytest.raises(ConversionError, match=r"first .*PReLU.*no weights yet.*Call the network"):
        convert(flat)
    run(flat, volume(1, 8, 10, 4))
    randomized(flat)
    volumes, voxels = convert(flat, axis=axis), np.moveaxis(volume(1, 3, 8, 10, 4), 1, 1 + axis)
    assert volumes.count_params() == flat.count_params() and volumes.transfer_report.share == 1
    assert_allclose(run(volumes, voxels), by_slice(flat, voxels, axis), rtol=1e-4, atol=1e-5)


def test_channels_are_not_left_to_a_function_of_channels():
    grey = volume(1, 3, 8, 8, 1)
    for function in ("sparsemax", "softmax", softmax):
        flat = network_of(layers.Activation(function), layers.Conv2D(5, 3), shape=(8, 8, 3))
        expected = by_slice(flat, np.repeat(grey, 3, axis=-1))
        assert_allclose(run(convert(flat, in_channels=1), grey), expected, rtol=1e-4, atol=1e-5)


class OwnNorm(keras.constraints.MaxNorm):
    """One of the user's own, whose configuration does not rebuild it."""

    def get_config(self):
        return {}


class Halved(keras.constraints.Constraint):
    def __call__(self, w):
        return w / 2


CONSTRAINTS = {
    "UnitNorm": keras.constraints.UnitNorm(axis=[0, 1, 2]),
    "UnitNorm, first axis": keras.constraints.UnitNorm(),
    "UnitNorm, last axis": keras.constraints.UnitNorm(axis=-1),
    "MaxNorm": keras.constraints.MaxNorm(0.5, axis=(0, 1)),
    "MinMaxNorm": keras.constraints.MinMaxNorm(0.2, 0.4, rate=0.5, axis=[0, 1, 2]),
    "NonNeg": keras.constraints.NonNeg(),
    "own, with axes": OwnNorm(0.3, axis=[0, 1]),
    "own": Halved(),
    "function": lambda w: ops.clip(w, -0.1, 0.1),
}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("constraint", CONSTRAINTS.values(), ids=CONSTRAINTS)
def test_a_constraint_does_to_the_3d_kernel_what_it_did_to_the_2d_one(constraint, axis):
    flat = network_of(
        layers.Conv2D(5, 3, kernel_constraint=constraint, name="plain"),
        layers.Conv2DTranspose(4, 3, kernel_constraint=constraint, name="up"),
        layers.SeparableConv2D(4, 3, pointwise_constraint=constraint, name="separable"),
    )
    volumes = convert(flat, axis=axis)
    for name, kind in (("plain", "kernel"), ("up", "kernel"), ("separable", "pointwise_kernel")):
        where = 0 if name == "separable" else axis
        made = volumes.get_layer(name)
        expected = np.expand_dims(constraint(getattr(flat.get_layer(name), kind)), where)
        assert_allclose(made.kernel_constraint(made.kernel), expected, rtol=1e-5)


@pytest.mark.parametrize("axes", [[0, 1], [0], [0, 1, 2], [0, 1, 2, 3], [3]])
def test_a_depthwise_kernel_s_constraint_follows_its_axes(axes):
    constraint = keras.constraints.UnitNorm(axis=axes)
    for multiplier in (1, 2):
        layer = layers.DepthwiseConv2D(3, depth_multiplier=multiplier, depthwise_constraint=constraint, name="deep")
        flat = network_of(layer)
        if multiplier == 2 and len({2, 3} & set(axes)) == 1:
            with pytest.raises(ConversionError, match=r"deep .*depthwise_constraint 'UnitNorm'.*= None before"):
                convert(flat)
            continue
        made = convert(flat).get_layer("deep")
        expected = np.reshape(constraint(layer.kernel), made.kernel.shape)
        assert_allclose(made.kernel_constraint(made.kernel), expected, rtol=1e-5)


def test_a_norm_over_the_plane_of_a_kernel_is_one_over_its_depth_too():
    flat = network_of(layers.Conv2D(5, 3, kernel_constraint=keras.constraints.UnitNorm(axis=[0, 1, 2]), name="conv"))
    made = convert(flat, "average").get_layer("conv")
    norms = np.square(made.kernel_constraint(made.kernel)).sum(axis=(0, 1, 2, 3))
    assert_allclose(norms, 1, rtol=1e-4)


class Strong(keras.regularizers.L2):
    """One of the user's own, whose configuration does not tell its strength."""

    def __call__(self, x):
        return 10 * super().__call__(x)

    def get_config(self):
        return {}


def test_regularizers_keep_their_strength():
    strong, of_rows = Strong(0.3), lambda w: ops.sum(ops.sqrt(ops.sum(ops.square(w), axis=1)))
    flat = network_of(
        layers.Conv2D(5, 3, kernel_regularizer=strong, bias_regularizer=strong, name="conv"),
        layers.BatchNormalization(gamma_regularizer=strong, name="norm"),
        layers.PReLU(alpha_regularizer=strong, shared_axes=[1, 2], name="slopes"),
        layers.Dense(3, kernel_regularizer=strong, activity_regularizer=strong, name="dense"),
    )
    volumes = convert(flat)
    volumes(volume(1, 1, 8, 10, 4)), flat(volume(1, 8, 10, 4))
    assert volumes.get_layer("dense").activity_regularizer is strong
    assert_allclose(sum(volumes.losses), sum(flat.losses), rtol=1e-4)
    with pytest.raises(ConversionError, match=r"odd .*kernel_regularizer.*= None before"):
        convert(network_of(layers.Conv2D(5, 3, kernel_regularizer=of_rows, name="odd")))


def test_initializers_of_the_2d_shapes_are_kept_and_do_no_harm():
    def fixed(shape, dtype=None):
        return np.ones((3, 3, 4, 5), "float32")

    flat = network_of(
        layers.Conv2D(5, 3, kernel_initializer=fixed, name="conv"),
        layers.PReLU(alpha_initializer=keras.initializers.Constant(np.ones((6, 8, 5)).tolist())),
    )
    voxels = volume(1, 3, 8, 10, 4)
    volumes = convert(flat)
    assert volumes.get_layer("conv").kernel_initializer is fixed
    assert_allclose(run(volumes, voxels), by_slice(flat, voxels), rtol=1e-4, atol=1e-5)
