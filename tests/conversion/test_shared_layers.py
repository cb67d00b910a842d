"""A layer used in several places does at each of them what it does there in 2D, and its weights stay one."""

import keras
import numpy as np
import pytest
from flat_networks import by_slice, network_of, randomized, run, volume
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

from planar3d.conversion.convert import convert
from planar3d.errors import ConversionError

POOLS = {
    "max": layers.MaxPooling2D,
    "average": lambda **name: layers.AveragePooling2D(2, **name),
    "max of three": lambda **name: layers.MaxPooling2D(3, 2, padding="same", **name),
}


def three_levels(pools, conv=None):
    """Three poolings, each behind a convolution of its own or one that they share."""
    image = x = keras.Input((16, 16, 3), name="image")
    for pool in pools:
        x = pool((conv or layers.Conv2D(3, 3, padding="same"))(x))
    return randomized(keras.Model(image, x))


@pytest.mark.parametrize("made", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("depth", [None, 12, 5])
@pytest.mark.parametrize("depth_pooling", ["keep", "match", [3, 1, 2]])
def test_one_pooling_at_three_levels_gives_what_three_poolings_give(made, depth, depth_pooling):
    pool = made(name="pool")
    shared, apart = three_levels([pool] * 3), three_levels([made() for _ in range(3)])
    voxels = volume(1, depth or 12, 16, 16, 3)
    found, expected = (run(convert(each, depth=depth, depth_pooling=depth_pooling), voxels) for each in (shared, apart))
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    if depth_pooling == "match":
        assert found.shape[1] == -(-voxels.shape[1] // 8)


def test_where_its_places_agree_a_layer_stays_one():
    pool, conv = layers.MaxPooling2D(name="pool"), layers.Conv2D(3, 3, padding="same", name="conv")
    flat = three_levels([pool] * 3, conv)
    volumes = convert(flat, "average", depth=8, depth_pooling="match")
    assert [layer.name for layer in volumes.layers] == [layer.name for layer in flat.layers]
    assert [row.target for row in volumes.transfer_report.rows] == ["conv", "pool"]
    assert volumes.count_params() == flat.count_params() + 2 * np.prod(conv.kernel.shape)


def test_strided_convolutions_stay_shared_or_are_refused():
    conv = layers.Conv2D(3, 3, strides=2, padding="same", name="twice")
    image = keras.Input((16, 16, 3))
    flat = randomized(keras.Model(image, conv(conv(image))))
    volumes, voxels = convert(flat, depth_pooling="match"), volume(1, 8, 16, 16, 3)
    assert volumes.count_params() == flat.count_params()
    assert_allclose(run(volumes, voxels), by_slice(flat, voxels)[:, ::4], rtol=1e-4, atol=1e-5)
    with pytest.raises(ConversionError, match=r"twice .*depth_pooling=\[2, 1\] treats differently"):
        convert(flat, depth_pooling=[2, 1])


@pytest.mark.parametrize(
    "made", [lambda: layers.GroupNormalization(2), lambda: layers.EinsumDense("abcd,de->abce", (8, 10, 4))]
)
def test_a_layer_of_each_slice_stays_one(made):
    layer = made()
    flat = network_of(layer, layers.ReLU(), layer)
    volumes = convert(flat)
    assert len(volumes.weights) == len(flat.weights)
    assert_allclose(run(volumes, volume(1, 3, 8, 10, 4)), by_slice(flat, volume(1, 3, 8, 10, 4)), rtol=1e-4, atol=1e-5)


def test_attention_of_several_places_stays_one():
    layer = layers.MultiHeadAttention(2, 3)
    flat = network_of(layers.Reshape((80, 4)), lambda x: layer(x, x), lambda x: layer(x, x))
    volumes = convert(flat)
    assert len(volumes.weights) == len(flat.weights)
    assert_allclose(run(volumes, volume(1, 3, 8, 10, 4)), by_slice(flat, volume(1, 3, 8, 10, 4)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_layers_without_weights_are_shared_by_tensors_of_any_size(axis):
    up, pad, crop = layers.UpSampling2D(), layers.ZeroPadding2D(1), layers.Cropping2D(1)
    drop, relu, flatten = layers.Dropout(0.5), layers.Activation("relu"), layers.Flatten()
    image = keras.Input((4, 4, 3))
    fine = crop(up(pad(up(image))))
    x = relu(drop(layers.Conv2D(5, 3)(relu(drop(fine)))))
    both = layers.Concatenate()([flatten(image), flatten(x)])
    flat = randomized(keras.Model(image, both))
    voxels = np.moveaxis(volume(2, 3, 4, 4, 3), 1, 1 + axis)
    assert_allclose(run(convert(flat, axis=axis), voxels), by_slice(flat, voxels, axis), rtol=1e-4, atol=1e-5)


def test_a_layer_of_channels_is_shared_by_maps_and_vectors():
    norm = layers.LayerNormalization(name="norm")
    image = keras.Input((6, 6, 4))
    x = norm(image)
    flat = randomized(keras.Model(image, norm(layers.GlobalAveragePooling2D()(x))))
    volumes, voxels = convert(flat), volume(1, 3, 6, 6, 4)
    assert volumes.count_params() == flat.count_params()
    assert_allclose(run(volumes, voxels), by_slice(flat, voxels), rtol=1e-4, atol=1e-5)


def backbone():
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(3, 3, padding="same", name="first")(image)
    return keras.Model(image, layers.MaxPooling2D(name="pool")(x), name="backbone")


def test_a_nested_network_used_twice_loses_no_slice():
    image, inner = keras.Input((16, 16, 3)), backbone()
    flat = randomized(keras.Model(image, inner(inner(image))))
    volumes = convert(flat, depth=6, depth_pooling="match")
    assert volumes.count_params() == flat.count_params()
    assert run(volumes, volume(1, 6, 16, 16, 3)).shape[1] == 2


def test_a_nested_network_is_not_shared_by_slices_and_whole_volumes():
    vector = keras.Input((3,))
    head = keras.Model(vector, layers.Dense(3)(vector), name="head")
    image, age = keras.Input((8, 8, 3)), keras.Input((3,))
    flat = keras.Model([image, age], [head(layers.GlobalAveragePooling2D()(image)), head(age)])
    with pytest.raises(ConversionError, match=r"head .*used in several places.*global_pooling='volume'"):
        convert(flat)
    assert convert(flat, global_pooling="volume").output_shape == [(None, 3), (None, 3)]


@pytest.mark.parametrize("inner", [lambda: layers.Conv2D(3, 3, padding="same"), backbone])
def test_one_channel_and_shared_weights_go_together(inner):
    """The same weights see the image, of one channel now, and maps of three."""
    image, inner = keras.Input((16, 16, 3)), inner()
    flat = randomized(keras.Model(image, inner(inner(image))))
    grey = volume(1, 3, 16, 16, 1)
    expected = by_slice(flat, np.repeat(grey, 3, axis=-1))
    assert_allclose(run(convert(flat, in_channels=1), grey), expected, rtol=1e-4, atol=1e-5)


def test_what_is_made_besides_does_not_take_the_name_of_another_layer():
    pool = layers.MaxPooling2D(name="pool")
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(3, 3, padding="same", name="pool_1")(pool(image))
    x = layers.Conv2D(3, 3, padding="same", name="pool_depth")(pool(x))
    flat = randomized(keras.Model(image, pool(x)))
    volumes = convert(flat, depth=12, depth_pooling="match")
    assert run(volumes, volume(1, 12, 16, 16, 3)).shape[1] == 2
    assert_array_equal(volumes.get_layer("pool_1").kernel[0], flat.get_layer("pool_1").kernel)
