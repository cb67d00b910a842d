"""What a network does to channels before its first layer keeps its plain meaning in each slice."""

import keras
import numpy as np
import pytest
from flat_networks import by_slice, network_of, randomized, run, volume
from keras import layers, ops
from numpy.testing import assert_allclose

from planar3d.conversion.convert import convert
from planar3d.errors import ConversionError

RNG = np.random.default_rng(5)
VECTOR = RNG.normal(size=3).astype("float32")
MAP = RNG.normal(size=(8, 10, 1)).astype("float32")


def stacked(order):
    return lambda x: ops.stack([x[..., channel] for channel in order], axis=-1)


def unstacked(x):
    red, green, blue = ops.unstack(x, axis=-1)
    return ops.stack([blue, red, green], axis=-1)


def split(x):
    red, green, blue = ops.split(x, 3, axis=-1)
    return ops.concatenate([blue, green, red], axis=-1)


applications = keras.applications
CHANNELS = {
    "reversed": lambda x: x[..., ::-1],
    "one by one": stacked((2, 1, 0)),
    "negative": stacked((-1, 0, -2)),
    "slices": lambda x: ops.concatenate([x[..., 2:3], x[:, :, :, 0:1], x[..., -2:-1]], axis=-1),
    "new axes": lambda x: ops.concatenate([x[..., 1][..., None], x[..., 0, None], x[..., 2, None]], axis=-1),
    "expand_dims": lambda x: ops.concatenate([ops.expand_dims(x[..., 2], -1), x], axis=-1),
    "squeeze": lambda x: ops.stack([ops.squeeze(x[..., 1:2], -1), ops.squeeze(x[..., 0:1])], axis=3),
    "stacked in the middle": lambda x: ops.transpose(ops.stack([x[..., 2], x[..., 0]], axis=1), (0, 2, 3, 1)),
    "unstack": unstacked,
    "split": split,
    "flip": lambda x: ops.flip(x, axis=-1),
    "flip of rows and channels": lambda x: ops.flip(x, axis=(1, -1)),
    "roll": lambda x: ops.roll(x, 1, axis=-1),
    "take": lambda x: ops.take(x, [2, -2, 0, 0], axis=-1),
    "take one": lambda x: ops.stack([ops.take(x, 1, axis=3), ops.take(x, -1, axis=3)], axis=-1),
    "grey": lambda x: ops.mean(x, axis=-1, keepdims=True) + x,
    "the largest channel": lambda x: ops.expand_dims(ops.max(x, axis=-1), axis=-1) - x,
    "the mean of rows": lambda x: x - ops.expand_dims(ops.mean(x, axis=1), axis=1),
    "the mean of columns": lambda x: x - ops.expand_dims(ops.mean(x, axis=2), axis=2),
    "single rows": lambda x: ops.stack([x[:, 1], x[:, -1], x[:, 4]], axis=1),
    "single columns": lambda x: ops.stack([x[:, :, 0], x[:, :, 4], x[:, :, -2]], axis=2),
}
CONSTANTS = {
    "number": lambda x: x / 255.0 - 0.5,
    **{
        f"{shape}": lambda x, shape=shape: (
            (x - VECTOR.reshape(shape)) / ops.convert_to_tensor(2 + VECTOR.reshape(shape))
        )
        for shape in ((3,), (1, 3), (1, 1, 3), (1, 1, 1, 3))
    },
    "map": lambda x: x * MAP + MAP[np.newaxis],
    "rows": lambda x: x * MAP[:, :1] - MAP[np.newaxis, :, :1],
    "columns": lambda x: ops.maximum(MAP[0], x),
    "map of channels": lambda x: x + MAP * VECTOR,
    "where": lambda x: ops.where(MAP > 0, x, 0.0) + ops.where(x > 0, VECTOR, MAP),
    "clip": lambda x: ops.clip(x, MAP - 0.5, VECTOR[np.newaxis, np.newaxis] + 1),
    "Rescaling": lambda x: layers.Rescaling(VECTOR.reshape(1, 1, 3), MAP)(x),
    "Rescaling by lists": lambda x: layers.Rescaling(VECTOR.tolist(), MAP[np.newaxis].tolist())(x),
}
OWN = {
    name: getattr(applications, name).preprocess_input
    for name in ("vgg16", "resnet50", "resnet_v2", "efficientnet", "mobilenet", "densenet", "convnext")
}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("preprocess", {**CHANNELS, **CONSTANTS, **OWN}.values(), ids={**CHANNELS, **CONSTANTS, **OWN})
def test_channels_and_constants_mean_in_each_slice_what_they_mean_in_2d(preprocess, axis):
    flat = network_of(preprocess, layers.Conv2D(4, 3), shape=(8, 10, 3))
    voxels = np.moveaxis(volume(2, 5, 8, 10, 3), 1, 1 + axis)
    expected = by_slice(flat, voxels, axis)
    assert_allclose(run(convert(flat, axis=axis), voxels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("in_channels", [1, 2])
@pytest.mark.parametrize("preprocess", {**CHANNELS, **CONSTANTS, **OWN}.values(), ids={**CHANNELS, **CONSTANTS, **OWN})
def test_equal_channels_give_what_a_grey_image_gives(preprocess, in_channels):
    flat, grey = network_of(preprocess, layers.Conv2D(4, 3), shape=(8, 10, 3)), volume(1, 3, 8, 10, 1)
    expected = by_slice(flat, np.repeat(grey, 3, axis=-1))
    found = run(convert(flat, in_channels=in_channels), np.repeat(grey, in_channels, axis=-1))
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_axes_of_unknown_size_are_not_taken_for_each_other(axis):
    image = keras.Input((None, None, 3))
    x = ops.max(image, axis=-1)
    flat = randomized(keras.Model(image, layers.Conv2D(4, 3)(ops.stack([x, ops.square(x)], axis=-1))))
    voxels = np.moveaxis(volume(1, 6, 6, 6, 3), 1, 1 + axis)
    assert_allclose(run(convert(flat, axis=axis), voxels), by_slice(flat, voxels, axis), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preprocess", ["vgg16", "resnet50", "densenet"])
def test_depth_is_divided_behind_a_network_s_own_preprocessing_too(preprocess):
    flat = network_of(OWN[preprocess], layers.Conv2D(4, 3, padding="same"), layers.MaxPooling2D(), shape=(8, 8, 3))
    for depth_pooling in ("match", [2]):
        assert run(convert(flat, depth_pooling=depth_pooling), volume(1, 6, 8, 8, 3)).shape[1] == 3


def test_a_network_with_its_own_preprocessing_is_saved_and_read(tmp_path):
    flat = network_of(OWN["vgg16"], lambda x: x * MAP, layers.Conv2D(4, 3), shape=(8, 10, 3))
    volumes, voxels = convert(flat, axis=1), volume(1, 8, 2, 10, 3)
    volumes.save(tmp_path / "volumes.keras")
    read = keras.saving.load_model(tmp_path / "volumes.keras", safe_mode=True)
    assert_allclose(run(read, voxels), run(volumes, voxels))


WITHOUT_MEANING = {
    "a sample": lambda x: x[0],
    "samples apart": lambda x: x + np.ones((2, 1, 1, 1), "float32"),
    "samples turned": lambda x: ops.flip(x, axis=0),
    "all turned": lambda x: ops.flip(x),
    "all in a row": lambda x: ops.take(x, [0, 1]),
    "samples stacked": lambda x: ops.stack([x, x], axis=0),
    "samples swapped": lambda x: ops.transpose(x),
    "a table of entries": lambda x: ops.take(x, [[0, 1], [1, 2]], axis=-1),
}


@pytest.mark.parametrize("preprocess", WITHOUT_MEANING.values(), ids=WITHOUT_MEANING)
def test_what_has_no_plain_meaning_is_refused(preprocess):
    image = keras.Input((8, 10, 3))
    with pytest.raises(ConversionError, match=r"no counterpart in 3D: its? .*(batch|sample to sample|several axes)"):
        convert(keras.Model(image, preprocess(image)))
