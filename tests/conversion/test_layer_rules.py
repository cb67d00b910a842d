"""Each layer does in 3D, slice by slice, what it does in 2D, wherever depth lies."""

import keras
import numpy as np
import pytest
from flat_networks import by_slice, network_of, run, volume
from keras import layers, ops
from numpy.testing import assert_allclose

from planar3d.conversion.convert import convert

LAYERS = {
    "Conv2D, same": lambda: layers.Conv2D(5, 3, padding="same", activation="relu"),
    "Conv2D, valid, strides": lambda: layers.Conv2D(5, (3, 2), strides=2),
    "Conv2D, same, strides": lambda: layers.Conv2D(5, 3, strides=2, padding="same"),
    "Conv2D, dilated": lambda: layers.Conv2D(5, 3, dilation_rate=2, use_bias=False),
    "Conv2D, groups": lambda: layers.Conv2D(6, 3, groups=2),
    "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(3, padding="same"),
    "DepthwiseConv2D, multiplier, strides": lambda: layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2),
    "SeparableConv2D": lambda: layers.SeparableConv2D(5, 3, padding="same", activation="tanh"),
    "SeparableConv2D, strides": lambda: layers.SeparableConv2D(5, 3, strides=2, depth_multiplier=2, use_bias=False),
    "Conv2DTranspose": lambda: layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
    "Conv2DTranspose, output padding": lambda: layers.Conv2DTranspose(5, 3, strides=2, output_padding=1),
    "MaxPooling2D": lambda: layers.MaxPooling2D(3, 2),
    "MaxPooling2D, same": lambda: layers.MaxPooling2D(3, 1, padding="same"),
    "AveragePooling2D": lambda: layers.AveragePooling2D(2, padding="same"),
    "GlobalAveragePooling2D": lambda: layers.GlobalAveragePooling2D(),
    "GlobalAveragePooling2D, keepdims": lambda: layers.GlobalAveragePooling2D(keepdims=True),
    "GlobalMaxPooling2D": lambda: layers.GlobalMaxPooling2D(),
    "UpSampling2D": lambda: layers.UpSampling2D((2, 3)),
    "UpSampling2D, NumPy's integers": lambda: layers.UpSampling2D(np.array([2, 3])),
    "UpSampling2D, bilinear": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
    "ZeroPadding2D": lambda: layers.ZeroPadding2D(((1, 2), (0, 3))),
    "Cropping2D": lambda: layers.Cropping2D(((1, 2), (0, 3))),
    "BatchNormalization": lambda: layers.BatchNormalization(axis=3),
    "LayerNormalization": lambda: layers.LayerNormalization(),
    "LayerNormalization, slice": lambda: layers.LayerNormalization(axis=[1, 2, 3]),
    "GroupNormalization": lambda: layers.GroupNormalization(2),
    "RMSNormalization": lambda: layers.RMSNormalization(),
    "RMSNormalization, slice": lambda: layers.RMSNormalization(axis=[1, 2, 3]),
    "UnitNormalization": lambda: layers.UnitNormalization(),
    "Normalization": lambda: layers.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 2.0, 3.0, 4.0]),
    "Normalization, adapted": lambda: layers.Normalization(),
    "Rescaling": lambda: layers.Rescaling(0.5, 1.0),
    "PReLU": lambda: layers.PReLU(),
    "PReLU, shared": lambda: layers.PReLU(shared_axes=[1, 2]),
    "Softmax": lambda: layers.Softmax(axis=2),
    "Activation": lambda: layers.Activation("hard_silu"),
    "LeakyReLU": lambda: layers.LeakyReLU(0.1),
    "Dropout": lambda: layers.Dropout(0.5, noise_shape=(None, 1, 1, 1)),
    "SpatialDropout2D": lambda: layers.SpatialDropout2D(0.5),
    "Dense": lambda: layers.Dense(3),
    "Permute": lambda: layers.Permute((2, 1, 3)),
    "Reshape": lambda: layers.Reshape((8, 10, 2, 2)),
    "Flatten": lambda: layers.Flatten(),
    "ops.mean": lambda: lambda x: ops.mean(x, axis=[1, 2]),
    "ops.max, channels": lambda: lambda x: ops.max(x, axis=-1, keepdims=True),
    "arithmetic": lambda: lambda x: ops.clip(2.0 * x - 1.0, -0.5, 0.5) / 3.0 + x,
    "ops.concatenate": lambda: lambda x: ops.concatenate([x, ops.silu(x)], axis=3),
    "slices": lambda: lambda x: x[:, 1:, :-2, ::2] + x[..., 1:, 2:, 1:3],
    "ops.softmax": lambda: lambda x: ops.softmax(x, axis=-1),
    "ops.squeeze": lambda: lambda x: ops.squeeze(layers.GlobalMaxPooling2D(keepdims=True)(x), (1, 2)),
}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("made", LAYERS.values(), ids=LAYERS)
def test_a_planar_layer_equals_the_2d_layer_slice_by_slice(made, axis):
    _equals_by_slice(network_of(made()), axis)


def _equals_by_slice(flat, axis):
    voxels = np.moveaxis(volume(2, 3, 8, 10, 4), 1, 1 + axis)
    expected = by_slice(flat, voxels, axis)
    if expected.ndim == 6:  # a map of groups of channels, depth among its rows and columns
        expected = np.moveaxis(expected, 1, 1 + axis)
    assert_allclose(run(convert(flat, axis=axis), voxels), expected, rtol=1e-4, atol=1e-5)


def tokens(*behind):
    return lambda x: keras.Sequential([layers.Reshape((80, 4)), *behind])(x)


def attending(**options):
    return lambda x: layers.MultiHeadAttention(2, 3, **options)(x, value=x)


def efficient_channel_attention(x):
    y = layers.Reshape((4, 1))(layers.GlobalAveragePooling2D()(x))
    return x * layers.Reshape((1, 1, 4))(layers.Conv1D(1, 3, padding="same", activation="sigmoid")(y))


def vision_transformer(x):
    y = layers.Reshape((20, 6))(layers.Conv2D(6, 2, strides=2)(x)) + volume(20, 6)
    y += attending()(layers.LayerNormalization()(y))
    y += layers.Dense(6, activation="gelu")(layers.LayerNormalization()(y))
    return layers.Conv2DTranspose(2, 2, strides=2)(layers.Reshape((4, 5, 6))(y))


def windows(x):
    y = ops.transpose(layers.Reshape((4, 2, 5, 2, 4))(x), (0, 1, 3, 2, 4, 5))
    y = layers.EinsumDense("abcde,dfe->abcf", (4, 5, 3))(layers.Reshape((4, 5, 4, 4))(y))
    return layers.Reshape((2, 10, 3))(y)


OF_WHOLE_SLICES = {
    "ActivityRegularization": layers.ActivityRegularization(0.1),
    "CenterCrop": layers.CenterCrop(4, 5),
    "Conv1D on": tokens(layers.Conv1D(3, 3, activation="relu"), layers.MaxPooling1D(), layers.GlobalMaxPooling1D()),
    "EinsumDense": layers.EinsumDense("abcd,dce->abe", (8, 3), bias_axes="e", activation="gelu"),
    "Embedding": lambda x: layers.Embedding(9, 3)(tokens()(ops.cast(ops.clip(2 * x + 4, 0, 8), "int32"))),
    "LayerNormalization, rows and channels": layers.LayerNormalization(axis=[1, -1]),
    "LayerNormalization, columns and channels": layers.LayerNormalization(axis=[-2, -1]),
    "MultiHeadAttention, map": attending(),
    "MultiHeadAttention, axis": lambda x: attending(attention_axes=1)(tokens()(x)),
    "Resizing": layers.Resizing(5, 7, crop_to_aspect_ratio=True),
    "efficient channel attention": efficient_channel_attention,
    "tokens and back": lambda x: layers.Conv2D(3, 3)(tokens(layers.Reshape((10, 8, 4)))(x)),
    "ops.reshape": lambda x: ops.reshape(ops.reshape(x, (-1, 80, 4)), (-1, 10, 8, 4)),
    "vision transformer": vision_transformer,
    "windows": windows,
    "operations of each value": lambda x: (
        ops.squareplus(ops.floor(x), b=3) + ops.celu(x, 0.5) + ops.soft_shrink(x, 0.3)
    ),
    "operations along axes": lambda x: ops.cumsum(x, 1) + ops.normalize(x, 2) + ops.prod(x, (1, 2), keepdims=True),
}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("made", OF_WHOLE_SLICES.values(), ids=OF_WHOLE_SLICES)
def test_what_takes_a_slice_as_a_whole_takes_each_slice_of_a_volume(made, axis):
    _equals_by_slice(network_of(made), axis)


def test_a_vision_transformer_predicts_volumes_of_any_depth_and_is_read_from_its_file(tmp_path):
    flat = network_of(layers.Resizing(8, 10), vision_transformer, shape=(16, 20, 4))
    volumes, voxels = convert(flat), volume(1, 5, 16, 20, 4)
    volumes.save(tmp_path / "volumes.keras")
    found = keras.saving.load_model(tmp_path / "volumes.keras").predict(voxels, verbose=0)
    assert_allclose(found, by_slice(flat, voxels), rtol=1e-4, atol=1e-5)


def test_images_are_cut_and_resized_before_channels_are_summed():
    flat = network_of(layers.Resizing(8, 8), layers.CenterCrop(6, 6), layers.Conv2D(3, 3, name="first"))
    grey = volume(1, 3, 8, 10, 1)
    volumes = convert(flat, in_channels=1)
    assert volumes.get_layer("first").kernel.shape[-2] == 1
    assert_allclose(run(volumes, grey), by_slice(flat, np.repeat(grey, 4, -1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize(
    "made",
    [
        lambda policy: layers.GlobalAveragePooling2D(dtype=policy),
        lambda policy: layers.GlobalMaxPooling2D(keepdims=True, dtype=policy),
        lambda policy: layers.Flatten(dtype=policy),
        lambda policy: layers.Reshape((8, 10, 2, 2), dtype=policy),
        lambda policy: layers.GroupNormalization(2, dtype=policy),
        lambda policy: lambda x: ops.reshape(x, (-1, 8, 10, 2, 2)),
    ],
)
def test_layers_compute_in_the_precision_of_the_2d_layer(made, policy, axis):
    for before in ("float32", "float16"):
        flat = network_of(layers.Activation("relu", dtype=before), made(policy))
        assert convert(flat, axis=axis).outputs[0].dtype == flat.outputs[0].dtype


@pytest.mark.parametrize(
    "around",
    [
        [layers.GlobalAveragePooling2D()],
        [layers.GroupNormalization(2)],
        [layers.ZeroPadding2D(1), layers.Conv2D(3, 3)],
    ],
    ids=["global pooling", "by slice", "paddings merged"],
)
def test_layers_called_with_a_named_input_are_converted(around):
    flat = network_of(*(lambda x, layer=layer: layer(inputs=x) for layer in around))
    voxels = volume(1, 5, 8, 10, 4)
    assert_allclose(run(convert(flat, "zero"), voxels), by_slice(flat, voxels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    "made", [lambda x, added: layers.Add()([x, added]), lambda x, added: layers.Softmax()(x, mask=added > 0)]
)
def test_a_constant_that_a_layer_takes_is_the_same_on_all_slices(made, axis):
    flat = network_of(lambda x: made(x, ops.convert_to_tensor(volume(1, 8, 10, 4, seed=3))))
    voxels = np.moveaxis(volume(1, 8, 8, 10, 4), 1, 1 + axis)
    assert_allclose(run(convert(flat, axis=axis), voxels), by_slice(flat, voxels, axis), rtol=1e-6)


@pytest.mark.parametrize("kind", [layers.Dropout, layers.AlphaDropout])
def test_values_dropped_together_in_a_slice_are_dropped_together_in_all_slices(kind):
    flat = network_of(kind(0.5, noise_shape=(None, 1, 1, 4)))
    found = np.asarray(convert(flat)(np.ones((6, 3, 8, 10, 4), "float32"), training=True))
    assert np.ptp(found) > 0 and np.ptp(found, axis=(1, 2, 3)).max() == 0


MERGES = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)


@pytest.mark.parametrize("merged", [*MERGES, lambda: layers.Concatenate(axis=2)])
def test_merges_of_branches_are_merges_in_3d(merged):
    image = keras.Input((6, 6, 3))
    branches = [image, layers.Conv2D(3, 3, padding="same")(image)]
    flat = keras.Model(image, merged()(branches))
    voxels = volume(1, 3, 6, 6, 3)
    assert_allclose(run(convert(flat), voxels), by_slice(flat, voxels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("merged", MERGES)
@pytest.mark.parametrize(
    "fewer",
    [
        lambda x: layers.Dense(4)(layers.GlobalAveragePooling2D()(x)),
        lambda x: layers.Dense(4)(ops.mean(x, 1)),
    ],
    ids=["a vector", "a row"],
)
def test_a_merge_of_fewer_axes_is_that_of_each_slice(fewer, merged, axis):
    """With as many slices as columns, which Keras takes for each other, and of any size."""
    flat = network_of(lambda x: merged()([layers.Conv2D(4, 1)(x), fewer(x)]), shape=(None, None, 4))
    voxels = np.moveaxis(volume(2, 10, 8, 10, 4), 1, 1 + axis)
    assert_allclose(run(convert(flat, axis=axis), voxels), by_slice(flat, voxels, axis), rtol=1e-4, atol=1e-5)


def squeeze_and_excite(x):
    squeezed = layers.GlobalAveragePooling2D()(x)
    squeezed = layers.Reshape((1, 1, 4))(layers.Dense(4, activation="sigmoid")(squeezed))
    return layers.Multiply()([x, squeezed])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_squeeze_and_excitation_keeps_its_meaning_in_each_slice(axis):
    flat = network_of(squeeze_and_excite)
    voxels = np.moveaxis(volume(2, 3, 8, 10, 4), 1, 1 + axis)
    assert_allclose(run(convert(flat, axis=axis), voxels), by_slice(flat, voxels, axis), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_squeeze_and_excitation_of_a_volume_is_that_of_all_its_slices_side_by_side(axis):
    flat = network_of(squeeze_and_excite, shape=(None, 10, 4))
    voxels = volume(2, 3, 8, 10, 4)
    side_by_side = run(flat, voxels.reshape(2, 24, 10, 4)).reshape(voxels.shape)
    found = run(convert(flat, axis=axis, global_pooling="volume"), np.moveaxis(voxels, 1, 1 + axis))
    assert_allclose(np.moveaxis(found, 1 + axis, 1), side_by_side, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_vector_of_the_volume_is_merged_with_all_its_slices(axis):
    flat = network_of(lambda x: layers.Multiply()([x, layers.GlobalAveragePooling2D()(x)]))
    voxels = volume(2, 3, 8, 10, 4)
    found = run(convert(flat, axis=axis, global_pooling="volume"), np.moveaxis(voxels, 1, 1 + axis))
    expected = voxels * voxels.mean((1, 2, 3), keepdims=True)
    assert_allclose(np.moveaxis(found, 1 + axis, 1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_where_no_axis_is_of_size_one_none_is_squeezed(axis):
    flat = network_of(lambda x: ops.squeeze(x))
    voxels = np.moveaxis(volume(2, 1, 8, 10, 4), 1, 1 + axis)  # of a single slice
    assert_allclose(run(convert(flat, axis=axis), voxels), voxels)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_nested_layer_of_each_slice_takes_a_known_depth(axis):
    inner, image = network_of(layers.Resizing(3, 4)), keras.Input((8, 10, 4))
    network = convert(keras.Model(image, inner(image)), axis=axis, depth=5)
    assert network.output_shape[1 + axis] == 5


def test_channels_are_squeezed_whatever_global_pooling_takes():
    flat, voxels = network_of(layers.Conv2D(1, 3), lambda x: ops.squeeze(x, -1)), volume(2, 3, 8, 10, 4)
    found = run(convert(flat, global_pooling="volume"), voxels)
    assert_allclose(found.reshape(6, 6, 8), run(flat, voxels.reshape(6, 8, 10, 4)), rtol=1e-4, atol=1e-5)


def test_pooling_of_the_volume_gives_one_vector():
    heads = (layers.GlobalAveragePooling2D(keepdims=True), layers.Dropout(0.1), layers.Reshape((4,)), layers.Dense(3))
    flat = network_of(*heads)
    volumes = convert(flat, global_pooling="volume")
    assert volumes.output_shape == (None, 3)
    voxels = volume(2, 5, 8, 10, 4)
    assert_allclose(run(volumes, voxels), by_slice(flat, voxels).mean(axis=1), rtol=1e-4, atol=1e-5)
