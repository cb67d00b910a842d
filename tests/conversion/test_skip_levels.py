"""The skip levels of a network are found in its graph, wherever its layers are nested and whatever their names."""

import keras
import numpy as np
import pytest
from flat_networks import narrowed, network_of, randomized, run, volume
from keras import layers
from numpy.testing import assert_array_equal
from valueless import valueless

from planar3d.conversion.convert import convert
from planar3d.conversion.skip_levels import features
from planar3d.errors import ConversionError
from planar3d.graph.keras_graph import name_of
from planar3d.networks.planar_resunet import PlanarResUNet

TINY = {"decoder_filters": (4, 4, 4, 4), "bridge_filters": 4, "encoder_weights": None}


def layer_names(model):
    return [name_of(tensor) for tensor in model.outputs]


def residual_net():
    """Its second level ends at `sum`; a branch inside the block that reduces it goes one layer further."""
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="stem")(image)
    x = layers.MaxPooling2D(name="pool")(layers.ZeroPadding2D(0, name="pad")(x))
    x = layers.Add(name="sum")([x, layers.Conv2D(4, 3, padding="same", name="inside")(x)])
    short = layers.Conv2D(4, 1, strides=2, name="short")(x)
    long = layers.Conv2D(4, 3, strides=2, padding="same", name="long")(layers.ReLU(name="before")(x))
    x = layers.Add(name="coarse")([short, long])
    squeezed = layers.Dense(4)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return randomized(keras.Model(image, layers.Multiply(name="end")([x, squeezed]), name="residual"))


@pytest.mark.parametrize("mapping", ["planar", "average"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_levels_are_the_last_tensors_that_all_coarser_ones_are_made_of(mapping, axis):
    levels = features(convert(residual_net(), mapping, depth=6, axis=axis))
    assert layer_names(levels) == ["stem", "sum", "end"]
    rows = 1 if axis else 2
    assert [shape[rows] for shape in levels.output_shape] == [16, 8, 4]


def test_they_are_the_network_s_own_tensors():
    volumes = convert(residual_net())
    voxels = volume(1, 4, 16, 16, 3)
    levels = features(volumes)(voxels)
    assert_array_equal(levels[-1], run(volumes, voxels))
    inner = keras.Model(volumes.input, volumes.get_layer("sum").output)
    assert_array_equal(levels[1], run(inner, voxels))


def test_nested_models_are_looked_into():
    inner = residual_net()
    image = keras.Input((16, 16, 3))
    nested = keras.Model(image, layers.GlobalAveragePooling2D()(inner(layers.Rescaling(0.5)(image))))
    volumes = convert(nested)
    levels = features(volumes)
    assert layer_names(levels) == ["stem", "sum", "end"]
    voxels = volume(1, 4, 16, 16, 3)
    assert_array_equal(levels(voxels)[-1], run(convert(inner), 0.5 * voxels))
    assert {id(weight) for weight in levels.weights} == {id(weight) for weight in volumes.weights}


def test_where_branches_run_side_by_side_it_is_the_last_tensor():
    image = keras.Input((16, 16, 3))
    branches = [layers.Conv2D(4, 3, strides=2, padding="same", name=name)(image) for name in ("one", "two")]
    joined = layers.Add(name="end")([layers.MaxPooling2D()(branch) for branch in branches])
    names = layer_names(features(convert(keras.Model(image, joined))))
    assert names[1] in ("one", "two") and names[2] == "end"


def test_a_decoder_is_left_out():
    levels = features(PlanarResUNet((16, 32, 32, 3), **TINY))
    assert layer_names(levels) == ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "conc52"]


@pytest.mark.parametrize("coarse", [True, False])
def test_an_attention_gate_is_no_level(coarse):
    """It adds the coarser level to the finer one, at the resolution of either, and multiplies the finer one."""
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, padding="same", name="fine")(image)
    g = layers.Conv2D(4, 3, padding="same", name="bottleneck")(layers.MaxPooling2D()(x))
    gate, raised = layers.Conv2D(4, 1, name="phi")(g), layers.UpSampling2D()
    short = layers.Conv2D(4, 1, strides=2 if coarse else 1, name="theta")(x)
    gate = layers.ReLU(name="sum")(layers.Add()([gate if coarse else raised(gate), short]))
    gate = layers.Conv2D(1, 1, activation="sigmoid", name="psi")(gate)
    gated = layers.Multiply()([x, raised(gate) if coarse else gate])
    end = layers.Conv2D(1, 1)(layers.Concatenate()([gated, layers.Conv2DTranspose(4, 2, strides=2)(g)]))
    assert layer_names(features(convert(keras.Model(image, end)))) == ["fine", "bottleneck"]


LEVELS = {
    "MobileNetV2": [
        "block_1_expand_relu",
        "block_3_expand_relu",
        "block_6_expand_relu",
        "block_13_expand_relu",
        "out_relu",
    ],
    "ResNet50": ["conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"],
}


@pytest.mark.parametrize("name", LEVELS)
def test_applications_have_the_levels_that_the_literature_takes(name):
    with valueless():
        whole = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(32, 32, 3))
    flat = narrowed(whole)
    levels = features(convert(flat, in_channels=1))
    assert layer_names(levels)[1:] == LEVELS[name]
    assert np.all([shape[2] == 32 // 2**level for level, shape in enumerate(levels.output_shape)])


@pytest.mark.parametrize("axis", [0, 2])
def test_interpolated_upsampling_of_slices_leads_to_a_finer_level(axis):
    image = keras.Input((16, 16, 3))
    coarse = layers.Conv2D(4, 3, strides=2, padding="same", name="coarse")(image)
    fine = layers.UpSampling2D(interpolation="bilinear", name="up")(coarse)
    volumes = convert(keras.Model(image, layers.Conv2D(4, 3, name="decoded")(fine)), depth=4, axis=axis)
    levels = features(volumes)
    assert layer_names(levels)[1:] == ["coarse"] and levels.output_shape[1][1:4] == ((4, 8, 8), (8, 8, 4))[axis // 2]


def test_nested_layers_of_one_name_are_refused_until_they_have_other_names():
    inner = [keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(3, 3, padding="same", name="c")]) for _ in "ab"]
    image = keras.Input((16, 16, 3))
    volumes = convert(keras.Model(image, inner[1](inner[0](image))))
    with pytest.raises(ConversionError, match=r'"c" is used 2 times.* names of their own.*get_layer'):
        features(volumes)
    volumes.get_layer(inner[0].name).get_layer("c").name = "inner_c"
    assert layer_names(features(volumes)) == ["c"]


def test_only_networks_of_a_single_volume_have_levels():
    with pytest.raises(ConversionError, match="a single volume"):
        features(network_of(layers.Conv2D(3, 3)))
