"""Whole networks: nested, shared, of many inputs and outputs; their names, precision, files, and any depth."""

import keras
import numpy as np
import pytest
from flat_networks import by_slice, network_of, randomized, run, unchanged, volume
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

from planar3d.conversion.convert import convert
from planar3d.errors import ConversionError


def backbone():
    image = keras.Input((None, None, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(image)
    return keras.Model(image, layers.MaxPooling2D(name="pool")(x), name="backbone")


def nested():
    """A functional and a sequential model within a model, whose parts are applied twice."""
    image = keras.Input((8, 8, 3), name="image")
    shared, inner = layers.Conv2D(3, 3, padding="same", name="shared"), backbone()
    head = keras.Sequential([keras.Input((4, 4, 4)), layers.SeparableConv2D(5, 3), layers.ReLU()], name="head")
    once, twice = inner(image, training=False), inner(shared(shared(image)))
    return randomized(keras.Model(image, layers.Add()([head(once), head(twice)]), name="whole"))


def test_nested_models_and_shared_layers_stay_so():
    flat, voxels = nested(), volume(2, 3, 8, 8, 3)
    volumes = convert(flat)
    assert_allclose(run(volumes, voxels), by_slice(flat, voxels), rtol=1e-4, atol=1e-5)
    assert volumes.count_params() == flat.count_params()
    assert [layer.name for layer in volumes.layers] == [layer.name for layer in flat.layers]
    assert volumes.get_layer("backbone").get_layer("first").kernel_size == (1, 3, 3)
    assert "backbone/first" in [row.source for row in volumes.transfer_report.rows]


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_a_nested_network_that_is_called_by_name_takes_each_input_by_its_name(names):
    inner = {name: keras.Input((2,), name=name) for name in names}
    outputs = [layers.Dense(3, name=f"dense_{name}")(inner[name]) for name in "ab"]
    image, vector = keras.Input((8, 8, 2)), keras.Input((2,))
    given = {"a": layers.GlobalAveragePooling2D()(image), "b": vector}  # a vector of each slice, and one of the volume
    flat = randomized(keras.Model([image, vector], keras.Model([*inner.values()], outputs)(given)))
    voxels, values = volume(2, 3, 8, 8, 2), np.float32([[1, 2], [3, 4]])
    found = convert(flat)([voxels, values])
    expected = [flat([voxels[:, place], values]) for place in range(3)]
    assert_allclose(found[0], np.stack([each[0] for each in expected], axis=1), rtol=1e-4, atol=1e-5)
    assert_allclose(found[1], expected[0][1], rtol=1e-4, atol=1e-5)


def test_a_network_goes_on_from_a_tensor_of_another_with_each_layer_in_one_place():
    flat, image = randomized(backbone()), keras.Input((3, 8, 8, 5), name="volume")
    squeezed = layers.Conv3D(4, (3, 1, 1), name="squeezed")(image)
    folded = layers.Permute((4, 2, 3, 1), name="folded")(layers.Concatenate(axis=1)([squeezed] * 3))
    whole = convert(flat, input_tensor=folded)
    assert whole.input is image and [layer.name for layer in whole.layers][-2:] == ["first", "pool"]
    voxels = volume(2, 3, 8, 8, 5)
    maps = run(keras.Model(image, folded), voxels)
    assert_allclose(run(whole, voxels), by_slice(flat, maps), rtol=1e-4, atol=1e-5)
    assert whole.get_layer("first").input is folded  # which a second use would make ambiguous


def test_a_network_goes_on_from_a_tensor_of_several_inputs():
    flat, images = randomized(backbone()), [keras.Input((3, 8, 8, channels)) for channels in (1, 2)]
    whole = convert(flat, input_tensor=layers.Concatenate()(images))
    voxels = volume(2, 3, 8, 8, 3)
    found = run(whole, [voxels[..., :1], voxels[..., 1:]])
    assert_allclose(found, by_slice(flat, voxels), rtol=1e-4, atol=1e-5)


def test_a_network_does_not_go_on_from_a_layer_of_the_name_of_one_of_its_own():
    image = keras.Input((3, 8, 8, 3))
    with pytest.raises(ConversionError, match=r'continue from input_tensor: .*"first" is used 2 times.* Rename the'):
        convert(backbone(), input_tensor=layers.ReLU(name="first")(image))


def test_a_sequential_model_is_converted_as_a_graph():
    flat = randomized(keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3), layers.GlobalMaxPooling2D()]))
    voxels = volume(1, 4, 6, 6, 2)
    assert_allclose(run(convert(flat), voxels), by_slice(flat, voxels), rtol=1e-4, atol=1e-5)


def test_images_and_vectors_come_in_and_several_things_go_out():
    images = {name: keras.Input((6, 6, 2), name=name) for name in ("flair", "t1")}
    age = keras.Input((1,), name="age")
    x = layers.Concatenate()([layers.Conv2D(3, 3, padding="same")(image) for image in images.values()])
    pooled = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.Dense(2)(age)])
    flat = keras.Model({**images, "age": age}, {"map": x, "score": layers.Dense(1)(pooled)})
    volumes = convert(flat, depth=4, global_pooling="volume")
    found = volumes({"flair": volume(2, 4, 6, 6, 2), "t1": volume(2, 4, 6, 6, 2, seed=3), "age": np.ones((2, 1))})
    assert found["map"].shape == (2, 4, 6, 6, 6) and found["score"].shape == (2, 1)


def test_names_trainability_and_configuration_stay():
    flat = network_of(
        layers.Conv2D(5, 3, padding="same", name="frozen", kernel_regularizer=keras.regularizers.L2(0.1)),
        layers.SeparableConv2D(5, 3, name="separable", depthwise_initializer="ones"),
    )
    flat.get_layer("frozen").trainable = False
    volumes = convert(flat, name="volumes")
    assert [layer.name for layer in volumes.layers] == ["image", "frozen", "separable_depthwise", "separable"]
    assert volumes.name == "volumes" and convert(flat).name == "flat_3d"
    in_a_row = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3)], name="row")
    assert convert(in_a_row).name == "row_3d" and convert(in_a_row).transfer_report.source == "row"
    assert not volumes.get_layer("frozen").trainable and volumes.get_layer("separable").trainable
    assert volumes.get_layer("frozen").kernel_regularizer.l2 == pytest.approx(0.1)
    assert isinstance(volumes.get_layer("separable_depthwise").kernel_initializer, keras.initializers.Ones)


def test_the_2d_network_is_left_as_it_was():
    flat = nested()
    nodes = [len(layer._inbound_nodes) for layer in flat.layers]
    with unchanged(flat):
        for weight in convert(flat).weights:
            weight.assign(weight + 1)
    assert nodes == [len(layer._inbound_nodes) for layer in flat.layers]


@pytest.mark.parametrize("depth", [None, 1, 7])
def test_any_depth_is_taken_known_or_not(depth):
    flat = nested()
    volumes = convert(flat, depth=depth)
    assert volumes.input_shape == (None, depth, 8, 8, 3)
    for slices in (1, 7) if depth is None else (depth,):
        voxels = volume(1, slices, 8, 8, 3)
        assert_allclose(run(volumes, voxels), by_slice(flat, voxels), rtol=1e-4, atol=1e-5)


def test_a_batch_of_known_size_stays_known():
    image = keras.Input(batch_shape=(2, 6, 6, 3))
    assert convert(keras.Model(image, layers.Conv2D(4, 3)(image))).input_shape == (2, None, 6, 6, 3)


def test_precision_policies_stay():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        flat = nested()
    finally:
        keras.config.set_dtype_policy("float32")
    volumes, voxels = convert(flat), volume(1, 3, 8, 8, 3)
    first = volumes.get_layer("backbone").get_layer("first")
    assert first.compute_dtype == "bfloat16" and first.kernel.dtype == "float32"
    assert_allclose(run(volumes, voxels).astype(float), by_slice(flat, voxels).astype(float), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("mapping", ["planar", "average"])
def test_a_converted_network_can_be_saved_read_safely_and_cloned(tmp_path, mapping):
    flat = network_of(layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(keepdims=True), lambda x: 2.0 * x)
    volumes, voxels = convert(flat, mapping), volume(1, 4, 8, 10, 4)
    volumes.save(tmp_path / "volumes.keras")
    read = keras.saving.load_model(tmp_path / "volumes.keras", safe_mode=True)
    cloned = keras.models.clone_model(volumes)
    cloned.set_weights(volumes.get_weights())
    assert_array_equal(run(read, voxels), run(volumes, voxels))
    assert_array_equal(run(cloned, voxels), run(volumes, voxels))


def test_a_converted_network_learns():
    flat = network_of(layers.DepthwiseConv2D(3, padding="same"), layers.GlobalAveragePooling2D(), layers.Dense(1))
    volumes = convert(flat, "average", global_pooling="volume")
    volumes.compile("sgd", "mse")
    voxels, truth = volume(2, 4, 8, 10, 4), np.ones((2, 1))
    history = volumes.fit(voxels, truth, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_rows_and_slices_are_padded_at_once_before_a_deep_convolution():
    # TensorFlow's graphs by oneDNN lose one of two paddings before a convolution.
    inputs = keras.Input((8, 8, 2))
    padded = keras.layers.ZeroPadding2D(1, name="pad")(inputs)
    flat = keras.Model(inputs, keras.layers.Conv2D(3, 3, 2, "valid", name="conv")(padded))
    network = convert(flat, "repeat", depth=8, depth_pooling="match")
    pads = [layer for layer in network.layers if isinstance(layer, keras.layers.ZeroPadding3D)]
    assert [pad.padding for pad in pads] == [((1, 1),) * 3]
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 8, 2)).astype(np.float32)
    eager = np.asarray(network(x))
    assert eager.shape == (1, 4, 4, 4, 3)
    np.testing.assert_allclose(network.predict(x, verbose=0), eager, atol=1e-5)


@pytest.mark.parametrize("mapping", ["planar", "average", "acs_mean"])
@pytest.mark.parametrize("between", ["nothing", "a layer for training", "the end of a nested network"])
def test_a_padding_before_a_convolution_that_pads_is_kept_in_graphs(mapping, between):
    # TensorFlow's graphs by oneDNN lose one of two paddings, also of slices.
    padding, conv = layers.ZeroPadding2D(((1, 0), (0, 2))), layers.Conv2D(3, 3, padding="same")
    parts = {
        "nothing": [padding, conv],
        "a layer for training": [padding, layers.Dropout(0.5), conv],
        "the end of a nested network": [keras.Sequential([padding]), keras.Sequential([conv])],
    }
    network = convert(keras.Sequential([keras.Input((8, 10, 2)), *parts[between]]), mapping)
    voxels = volume(1, 4, 8, 10, 2)
    eager = np.asarray(network(voxels))
    assert eager.shape == (1, 4, 9, 12, 3)
    assert_allclose(network.predict(voxels, verbose=0), eager, atol=1e-5)


@pytest.mark.parametrize("mapping", ["planar", "average"])
@pytest.mark.parametrize("behind", [[], [layers.Dropout(0.1), layers.LeakyReLU()], [layers.Activation("leaky_relu")]])
def test_a_leaky_relu_behind_a_padded_convolution_is_right_in_graphs(mapping, behind):
    conv = layers.Conv2D(4, 3, use_bias=False, activation=None if behind else "leaky_relu")
    network = convert(network_of(layers.ZeroPadding2D(1), conv, *behind), mapping)
    x = volume(1, 5, 8, 10, 4)
    np.testing.assert_allclose(network.predict_on_batch(x), run(network, x), atol=1e-5)
