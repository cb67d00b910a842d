"""Networks for RGB images take one modality, or many."""

import keras
import numpy as np
import pytest
from flat_networks import network_of, randomized, run, volume
from keras import layers
from numpy.testing import assert_allclose

from planar3d.conversion.channels import spread
from planar3d.conversion.convert import convert
from planar3d.errors import ConversionError


def plain():
    first = layers.Rescaling(0.5), layers.Activation("tanh"), layers.ZeroPadding2D(1)
    return network_of(*first, layers.Conv2D(5, 3, name="conv"), shape=(8, 8, 3))


def normalized():
    """Its channels are shifted and scaled one by one, and padded with zeros behind that."""
    shift = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0, 3.0], name="shift")
    return network_of(shift, layers.ZeroPadding2D(1), layers.Conv2D(5, 3, name="conv"), shape=(8, 8, 3))


def depthwise():
    return network_of(layers.DepthwiseConv2D(3, name="conv"), shape=(8, 8, 3))


def nested():
    image = keras.Input((8, 8, 3))
    return randomized(keras.Model(image, normalized()(layers.GaussianNoise(0.1)(image))))


@pytest.mark.parametrize("flat", [plain, normalized, depthwise, nested])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_equal_channels_give_what_a_grey_image_gives(flat, channels):
    flat, grey = flat(), volume(1, 3, 8, 8, 1)
    expected = run(convert(flat), np.repeat(grey, 3, axis=-1))
    adapted = convert(flat, in_channels=channels)
    assert adapted.input_shape[-1] == channels
    assert_allclose(run(adapted, np.repeat(grey, channels, axis=-1)), expected, rtol=1e-4, atol=1e-5)


def test_one_channel_sums_the_kernels_and_leaves_the_network_s_size():
    flat = plain()
    adapted, kernel = convert(flat, in_channels=1), np.asarray(flat.get_layer("conv").kernel)
    assert_allclose(adapted.get_layer("conv").kernel[0], kernel.sum(axis=2, keepdims=True), rtol=1e-5)
    assert len(adapted.layers) == len(flat.layers)
    image = keras.Input((8, 8, 3))
    around = convert(keras.Model(image, flat(image)), in_channels=1)
    np.testing.assert_array_equal(around.get_layer("flat").get_layer("conv").kernel, adapted.get_layer("conv").kernel)


def test_vectors_beside_the_image_keep_their_channels():
    image, vector = keras.Input((8, 8, 3)), keras.Input((5,))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    flat = keras.Model([image, vector], layers.Concatenate()([pooled, vector]))
    adapted = convert(flat, in_channels=1, global_pooling="volume")
    assert adapted.input_shape == [(None, None, 8, 8, 1), (None, 5)]


def test_as_many_channels_leave_the_kernels():
    flat = plain()
    kernel = np.asarray(flat.get_layer("conv").kernel)
    np.testing.assert_array_equal(convert(flat, in_channels=3).get_layer("conv").kernel[0], kernel)


def test_channels_that_are_treated_one_by_one_are_made_first_by_a_fixed_layer():
    adapted = convert(normalized(), in_channels=1)
    made = adapted.get_layer("image_channels")
    assert not made.trainable and made.kernel.shape == (1, 1, 1, 1, 3)
    row = next(row for row in adapted.transfer_report.rows if row.target == "image_channels")
    assert (row.source, row.transferred, row.mapping) == ("", 0, "channels 1 to 3")


def test_images_of_integers_may_have_other_channels():
    image = keras.Input((4, 4, 3), dtype="uint8")
    flat = keras.Model(image, layers.Normalization(mean=[1, 2, 3], variance=[1, 4, 9])(image))
    voxels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 1), np.uint8)
    found = convert(flat, in_channels=1)(voxels[np.newaxis])[0]
    np.testing.assert_allclose(found, flat(voxels.repeat(3, -1)), rtol=1e-6)


@pytest.mark.parametrize("precision", ["float16", "float64"])
def test_other_channels_leave_the_precision_of_an_operation(precision):
    image = keras.Input((4, 4, 3), dtype=precision)
    assert convert(keras.Model(image, image[..., ::-1] / 2), in_channels=1).outputs[0].dtype == precision


@pytest.mark.parametrize("given", range(1, 9))
@pytest.mark.parametrize("wanted", range(1, 5))
def test_equal_channels_are_spread_to_equal_ones_and_none_is_left_out(given, wanted):
    weights = spread(given, wanted)
    assert weights.shape == (given, wanted)
    assert_allclose(weights.sum(axis=0), 1)
    assert weights.any(axis=1).all()


def test_more_channels_are_assigned_in_turn():
    np.testing.assert_array_equal(spread(4, 3), [[0.5, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0, 0]])


def test_several_images_leave_open_whose_channels_are_meant():
    images = [keras.Input((8, 8, 3)) for _ in range(2)]
    with pytest.raises(ConversionError, match="only one if in_channels"):
        convert(keras.Model(images, layers.Add()(images)), in_channels=1)
