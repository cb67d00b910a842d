"""An ACS layer on a volume equals its three planar parts (Yang et al. 2021)."""

import keras
import numpy as np
import pytest
from flat_networks import network_of, run, volume
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from planar3d.conversion.acs import ACSConv3D
from planar3d.conversion.convert import convert
from planar3d.errors import ConversionError

VOXELS = volume(1, 8, 8, 8, 4)


def in_plane(flat, flat_axis, first, end):
    """Some of the output channels of a network's one convolution, its kernel one slice thick along an axis."""
    layer = flat.layers[1]
    kernel = ops.expand_dims(layer.kernel[..., first:end], flat_axis)
    return np.asarray(ops.conv(VOXELS, kernel, 1, "same", None, layer.dilation_rate[0]) + layer.bias[first:end])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("filters", "ends"), [(6, (0, 2, 4, 6)), (8, (0, 3, 6, 8)), (7, (0, 3, 5, 7)), (2, (0, 1, 2))])
def test_three_groups_of_channels_lie_in_three_planes(axis, filters, ends):
    flat = network_of(layers.Conv2D(filters, 3, padding="same"), shape=(8, 8, 4))
    planes = [axis, *(other for other in range(3) if other != axis)]
    groups = zip(planes, ends, ends[1:], strict=False)
    expected = np.concatenate([in_plane(flat, *group) for group in groups], axis=-1)
    assert_allclose(run(convert(flat, "acs", axis=axis), VOXELS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["acs_mean", "acs_soft"])
def test_variants_average_all_channels_of_three_planes(variant):
    flat = network_of(layers.Conv2D(5, (3, 2), padding="same", dilation_rate=2), shape=(8, 8, 4))
    expected = np.mean([in_plane(flat, axis, 0, 5) for axis in range(3)], axis=0)
    assert_allclose(run(convert(flat, variant), VOXELS), expected, rtol=1e-4, atol=1e-5)


def test_the_planes_of_the_soft_variant_are_weighted_by_a_softmax():
    flat = network_of(layers.Conv2D(5, 3, padding="same", name="conv"), shape=(8, 8, 4))
    volumes = convert(flat, "acs_soft")
    volumes.get_layer("conv").planes.assign([50.0, 0.0, 0.0])
    assert_allclose(run(volumes, VOXELS), in_plane(flat, 0, 0, 5), rtol=1e-4, atol=1e-5)


LAYERS = {
    "valid": lambda padding: [layers.Conv2D(6, 3)],
    "strides": lambda padding: [layers.Conv2D(6, 3, strides=2, padding="same")],
    "groups": lambda padding: [layers.Conv2D(6, 3, groups=2, padding="same")],
    "depthwise": lambda padding: [layers.DepthwiseConv2D(3, padding="same")],
}


@pytest.mark.parametrize("made", LAYERS.values(), ids=LAYERS)
def test_in_the_first_plane_every_layer_samples_where_its_2d_self_does(made):
    flat = network_of(*made("same"), shape=(8, 8, 4))
    planar = run(convert(flat), VOXELS)
    third = planar.shape[-1] // 3 + (planar.shape[-1] % 3 > 0)
    assert_allclose(run(convert(flat, "acs"), VOXELS)[..., :third], planar[..., :third], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("options", "kept"), [({}, slice(1, -1)), ({"strides": 2, "padding": "same"}, slice(1, None, 2))]
)
def test_other_planes_of_a_valid_or_strided_convolution_are_cut_like_the_first(options, kept, axis):
    flat, same = (network_of(layers.Conv2D(6, 3, **how), shape=(8, 8, 4)) for how in (options, {"padding": "same"}))
    found, uncut = (run(convert(each, "acs", axis=axis), VOXELS) for each in (flat, same))
    cut = [slice(None) if other == axis else kept for other in range(3)]
    assert_allclose(found, uncut[:, *cut], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("behind", [[layers.BatchNormalization(), layers.ReLU()], [layers.LeakyReLU()]])
def test_slices_that_are_padded_after_rows_and_columns_are_kept_in_graphs(behind):
    # As DenseNet and EfficientNet begin.
    flat = network_of(layers.ZeroPadding2D(1), layers.Conv2D(6, 3, use_bias=False), *behind, shape=(8, 8, 4))
    volumes = convert(flat, "acs")
    assert_allclose(volumes.predict(VOXELS, verbose=0), run(volumes, VOXELS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["acs", "acs_soft"])
def test_a_network_with_acs_layers_is_read_back_as_it_was(variant, tmp_path):
    flat = network_of(layers.Conv2D(6, 3, strides=2, activation="relu"), layers.Conv2D(3, 1), shape=(8, 8, 4))
    volumes = convert(flat, variant)
    for weight in volumes.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    volumes.save(tmp_path / "acs.keras")
    read = keras.saving.load_model(tmp_path / "acs.keras", safe_mode=True)
    assert_array_equal(run(read, VOXELS), run(volumes, VOXELS))
    assert read.layers[1].compute_output_shape((1, None, 8, 8, 4)) == (1, None, 3, 3, 6)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (layers.Conv2DTranspose(4, 3), "Conv2DTranspose.*another mapping"),
        (layers.Conv2D(4, (3, 2)), "must be square"),
        (layers.Conv2D(4, 3, dilation_rate=(1, 2)), "one dilation for all axes"),
    ],
)
def test_what_cannot_lie_in_three_planes_is_refused_by_name(layer, says):
    with pytest.raises(ConversionError, match=rf"{layer.name}.*{says}"):
        convert(network_of(layer), "acs")


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="'acs', 'acs_mean', 'acs_soft'"):
        ACSConv3D(4, (3, 3), variant="sagittal")
