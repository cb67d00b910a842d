"""Depth is kept, divided as rows are, or divided by a factor for each level."""

import keras
import numpy as np
import pytest
from flat_networks import by_slice, network_of, randomized, run, volume
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

from planar3d.conversion.convert import convert
from planar3d.errors import ConversionError
from planar3d.networks.vgg16 import PlanarVGG16


def residual_net():
    """Three levels; branches of a strided convolution and of a pooling meet at the last; then back up to the first."""
    image = keras.Input((16, 16, 3), name="image")
    fine = layers.Conv2D(4, 3, padding="same", strides=2, name="strided")(image)
    x = layers.ZeroPadding2D(1, name="pad")(fine)
    branches = [layers.Conv2D(4, 3, strides=2, name="branch")(x), layers.MaxPooling2D(3, 2, name="pool")(x)]
    x = layers.Add()(branches)
    x = layers.Conv2DTranspose(4, 2, strides=2, name="up")(x)
    x = layers.UpSampling2D(name="last")(layers.Add()([x, fine]))
    return randomized(keras.Model(image, x))


def depths(network, slices, *names):
    model = keras.Model(network.input, [network.get_layer(name).output for name in names])
    return [level.shape[1] for level in model(volume(1, slices, 16, 16, 3))]


NAMES = ("strided", "branch", "up", "last")


@pytest.mark.parametrize(
    ("depth_pooling", "found"),
    [
        ("keep", [8, 8, 8, 8]),
        ("match", [4, 2, 4, 8]),
        ([1, 2], [8, 4, 8, 8]),
        ([4, 1], [2, 2, 2, 8]),
    ],
)
def test_what_strides_and_poolings_do_to_depth(depth_pooling, found):
    for mapping in ("planar", {"up": "planar", "*": "average"}):
        assert depths(convert(residual_net(), mapping, depth_pooling=depth_pooling), 8, *NAMES) == found


@pytest.mark.parametrize("slices", [5, 6, 7])
def test_branches_meet_at_depths_that_are_no_multiples(slices):
    network = residual_net()
    met = next(layer.output for layer in network.layers if isinstance(layer, layers.Add))
    volumes = convert(keras.Model(network.input, met), depth_pooling="match")
    assert run(volumes, volume(1, slices, 16, 16, 3)).shape[1] == -(-slices // 4)


def test_planar_strides_take_every_other_slice_and_poolings_the_largest():
    voxels = volume(1, 6, 8, 10, 4)
    strided = network_of(layers.Conv2D(5, 3, strides=2))
    found = run(convert(strided, depth_pooling="match"), voxels)
    assert_allclose(found, by_slice(strided, voxels)[:, ::2], rtol=1e-4, atol=1e-5)
    pooled = network_of(layers.MaxPooling2D(2))
    flat = by_slice(pooled, voxels)
    assert_array_equal(run(convert(pooled, depth_pooling="match"), voxels), np.maximum(flat[:, ::2], flat[:, 1::2]))


def test_overlapping_windows_leave_the_ends_out_of_the_maximum():
    flat = network_of(layers.MaxPooling2D(3, 2))
    voxels = volume(1, 4, 8, 10, 4) - 10  # a zero from beyond the ends would win
    found = run(convert(flat, depth_pooling="match"), voxels)
    assert found.shape[1] == 2 and found.max() < 0


@pytest.mark.parametrize(
    "layer", [layers.Conv2DTranspose(5, 2, strides=2), layers.UpSampling2D(interpolation="bilinear")]
)
def test_what_goes_up_repeats_slices(layer):
    flat = network_of(layer)
    voxels = volume(1, 3, 8, 10, 4)
    found = run(convert(flat, depth_pooling="match"), voxels)
    assert_allclose(found, np.repeat(by_slice(flat, voxels), 2, axis=1), rtol=1e-4, atol=1e-5)


def test_vgg16_converted_by_the_paper_s_choices_is_planar_vgg16():
    flat = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    volumes = convert(flat, depth=16, depth_pooling="match")
    ours = PlanarVGG16((16, 32, 32, 3), weights=None)
    for layer in ours.layers:
        layer.set_weights(volumes.get_layer(layer.name).get_weights() if layer.weights else [])
    volumes = keras.Model(volumes.input, volumes.get_layer("block5_conv3").output)
    voxels = volume(1, 16, 32, 32, 3)
    assert_array_equal(run(volumes, voxels), run(ours, voxels))


@pytest.mark.parametrize("depth_pooling", [[2], [2, 2, 2], []])
def test_a_list_of_another_length_says_how_many_levels_there_are(depth_pooling):
    with pytest.raises(ConversionError, match=r"at 2 levels \(where they are already reduced by 1, 2\)"):
        convert(residual_net(), depth_pooling=depth_pooling)


def test_a_list_for_a_network_without_levels_is_to_be_omitted():
    with pytest.raises(ConversionError, match=r"flat reduces rows and columns nowhere; omit depth_pooling\.$"):
        convert(network_of(layers.Conv2D(3, 3)), depth_pooling=[2])


def test_a_layer_shared_by_levels_of_different_factors_is_refused():
    image, conv = keras.Input((8, 8, 3)), layers.Conv2D(3, 2, strides=2, name="twice")
    flat = keras.Model(image, conv(conv(image)))
    assert run(convert(flat, depth_pooling=[2, 2]), volume(1, 8, 8, 8, 3)).shape[1] == 2
    with pytest.raises(ConversionError, match="twice"):
        convert(flat, depth_pooling=[2, 1])


def test_words_other_than_keep_and_match_are_refused():
    with pytest.raises(ConversionError, match="'keep', 'match'"):
        convert(residual_net(), depth_pooling="halve")


@pytest.mark.parametrize(("stride", "padding"), [(2, "valid"), (3, "valid"), (3, "same")])
def test_a_transposed_convolution_with_output_padding_multiplies_depth(stride, padding):
    flat = network_of(layers.Conv2DTranspose(3, 3, stride, padding, output_padding=1))
    voxels = volume(1, 3, 8, 10, 4)
    expected = np.repeat(by_slice(flat, voxels), stride, axis=1)
    assert_allclose(run(convert(flat, depth_pooling="match"), voxels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"depth_pooling": "match"}, r"up .*output_padding=\(1, 1\).* 2 taps .*depth_pooling='keep'"),
        ({"mapping": "zero", "kernel_depth": 4}, r"up .*output_padding=\(1, 1\).* 4 taps .*odd kernel_depth"),
    ],
)
def test_a_transposed_convolution_with_output_padding_has_an_odd_number_of_taps(choice, says):
    flat = network_of(layers.Conv2DTranspose(3, 3, 2, "same", output_padding=1, name="up"))
    with pytest.raises(ConversionError, match=says):
        convert(flat, **choice)


def test_a_level_resized_to_any_size_is_refused_where_depth_was_divided():
    flat = network_of(layers.Resizing(8, 8), layers.MaxPooling2D(), layers.Resizing(8, 8, name="odd"))
    assert convert(flat).output_shape == (None, None, 8, 8, 4)
    for depth_pooling in ("match", [2]):
        with pytest.raises(ConversionError, match=r"^odd \(Resizing\) .* it resizes .* UpSampling2D, or .*'keep'"):
            convert(flat, depth_pooling=depth_pooling)
