"""Files in the layout of Keras 2, as the original release and the stock VGG-16 have it, load by layer name."""

import keras
import numpy as np
import pytest
from flat_networks import assert_same
from keras import layers
from numpy.testing import assert_array_equal

from planar3d.graph.keras_graph import LayerScale
from planar3d.transfer.array_files import read_directly
from planar3d.transfer.keras2_layout import write_legacy_h5
from planar3d.transfer.transplant import load_weights

from .conftest import write_keras2


def same(found, values):
    assert list(found) == list(values)
    for name, array in values.items():
        assert_array_equal(found[name], array)


@pytest.mark.parametrize("root", ["", "model_weights"], ids=["weights only", "whole model"])
@pytest.mark.parametrize("as_bytes", [True, False], ids=["bytes", "str"])
@pytest.mark.parametrize(
    "variable",
    [
        "{layer}/{weight}:0",
        "{layer}/{layer}/{weight}:0",
        "{layer}_1/{weight}:0",  # a second network in one TensorFlow 1 session
        "{layer}/{weight}_1:0",
        "{layer}_{letter}_1:0",  # Keras 1, and the stock VGG-16 file
        "{layer}/{letter}:0",
        "{layer}/weird_{letter}s:0",  # no known name: a kernel and its bias by their order and rank
    ],
)
def test_layers_are_read_by_their_names(released_file, values, root, as_bytes, variable):
    same(read_directly(released_file(variable, root, as_bytes)), values)


def test_names_stored_in_numbered_pieces_are_joined(released_file, values):
    import h5py

    path = released_file()
    with h5py.File(path, "a") as file:
        names = file.attrs["layer_names"]
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:2], names[2:]
    same(read_directly(path), values)


def test_layers_of_a_nested_network_keep_their_own_names(tmp_path, values):
    inside = [(f"{name}:0", array) for name, array in values.items()]
    same(read_directly(write_keras2(tmp_path / "nested.h5", {"input": [], "vgg16": inside})), values)


def test_equal_names_in_two_nested_networks_keep_the_networks_names_as_well(tmp_path):
    weights = [("block1_conv1/kernel:0", np.zeros((3, 3, 1, 1))), ("block2_conv1/kernel:0", np.ones((3, 3, 1, 1)))]
    found = read_directly(write_keras2(tmp_path / "twins.h5", {"left": weights, "right": weights}))
    assert sorted(found) == [f"{side}/block{block}_conv1/kernel" for side in ("left", "right") for block in (1, 2)]


def test_normalization_and_depthwise_layers_get_the_names_of_keras_3(tmp_path):
    four = [(f"bn_1/{name}:0", np.full(2, i)) for i, name in enumerate(("gamma", "beta", "moving_mean"))]
    depthwise = [("dw/depthwise_kernel:0", np.zeros((3, 3, 2, 1))), ("dw/bias:0", np.zeros(2))]
    separable = [("sep/depthwise_kernel:0", np.zeros((3, 3, 2, 1))), ("sep/pointwise_kernel:0", np.zeros((1, 1, 2, 2)))]
    found = read_directly(write_keras2(tmp_path / "more.h5", {"bn": four, "dw": depthwise, "sep": separable}))
    assert list(found) == [
        *("bn/gamma", "bn/beta", "bn/moving_mean", "dw/kernel", "dw/bias"),
        *("sep/depthwise_kernel", "sep/pointwise_kernel"),
    ]


def test_slashes_in_names_of_layers_are_what_keras_3_has_for_them(tmp_path):
    files = {"conv1/conv": [("conv1/conv/kernel:0", np.ones((3, 3, 2, 4)))], "conv1/bn": [("conv1/bn/beta:0", 5)]}
    files["nested"] = [("conv1/conv/kernel:0", np.zeros((1, 1, 4, 4)))]
    found = read_directly(write_keras2(tmp_path / "densenet.h5", files))
    assert {name: np.max(array) for name, array in found.items()} == {
        "conv1_conv/kernel": 1,
        "conv1_bn/beta": 5,
        "conv/kernel": 0,
    }


@pytest.mark.parametrize("name", ["weights.h5", "whole.h5"])
def test_the_legacy_files_of_keras_3_are_read(tmp_path, flat_network, values, name):
    path = tmp_path / name
    if name == "whole.h5":
        flat_network.compile("adam", "mse")
        flat_network.save(path)
    else:
        write_legacy_h5(path, flat_network)
    same(read_directly(path), values)


def within(*inner, name):
    """A network of images with 3 channels, to be nested."""
    return keras.Sequential([keras.Input((8, 8, 3)), *inner], name=name)


def of_slices(name):
    return layers.TimeDistributed(layers.Conv2D(3, 1, name="inside"), name=name)


NETWORKS = {
    "slopes": [layers.PReLU(shared_axes=[1, 2], name="slopes")],
    "one layer in a nested network": [within(layers.Conv2D(3, 1, name="inside"), name="inner"), layers.Conv2D(2, 1)],
    "wrappers around layers of one name": [layers.Reshape((8, 8, 3, 1)), of_slices("first"), of_slices("second")],
    "embedding": [layers.Embedding(4, 3, name="embedding")],
    "scales without a name": [LayerScale(0.5, 3, name="scale"), layers.Conv2D(3, 1), LayerScale(0.5, 3, name="last")],
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_layers_within_others_fill_a_twin_network_entirely(tmp_path, kind):
    network = keras.models.clone_model(within(*NETWORKS[kind], name="rich"))
    network.save(tmp_path / "rich.h5")
    twin = keras.models.clone_model(network)
    twin.set_weights([weight + 1 for weight in network.get_weights()])
    report = load_weights(twin, tmp_path / "rich.h5", strict=True)
    assert not report.unused
    assert_same(twin, network)


def test_layers_within_others_load_from_files_of_keras_2(tmp_path):
    arrays = np.ones((1, 1, 3, 3)), np.full((3, 3, 3, 1), 2), np.full((1, 1, 1, 3), 3), np.full(3, 4)
    point, depthwise, wrapped, scale = arrays
    nested = [("point/kernel:0", point), ("depthwise/depthwise_kernel:0", depthwise)]
    stored = {"inner": nested, "wrapper": [("wrapper/kernel:0", wrapped)], "scale": [("scale/gamma:0", scale)]}
    network = within(
        within(
            layers.Conv2D(3, 1, use_bias=False, name="point"),
            layers.DepthwiseConv2D(3, use_bias=False, name="depthwise"),
            name="inner",
        ),
        layers.Reshape((6, 6, 3, 1)),
        layers.TimeDistributed(layers.Conv2D(3, 1, use_bias=False, name="inside"), name="wrapper"),
        LayerScale(0.5, 3, name="scale"),
        name="outer",
    )
    report = load_weights(network, write_keras2(tmp_path / "old.h5", stored), strict=True)
    assert not report.unused
    for found, array in zip(network.weights, arrays, strict=True):
        assert_array_equal(found, array)


def test_arrays_that_no_layer_lists_are_read_under_their_own_names(released_file, values):
    import h5py

    path = released_file()
    with h5py.File(path, "a") as file:
        file["top_level_model_weights/scale:0"] = np.ones(2)
        file["made_by"] = "a program"
        del file["block1_conv1"].attrs["weight_names"]
    found = read_directly(path)
    assert_array_equal(found.pop("top_level_model_weights/scale"), np.ones(2))
    assert found.keys() == values.keys()
    for name, array in values.items():
        assert_array_equal(found[name], array)


def test_a_written_file_loads_by_name_with_keras_own_reader(tmp_path, flat_network, values):
    path = tmp_path / "ours.h5"
    write_legacy_h5(path, flat_network)
    other = keras.models.clone_model(flat_network)
    other.load_weights(path, by_name=True)
    assert_same(other, flat_network)
    assert [p.name for p in tmp_path.iterdir()] == ["ours.h5"]


def test_a_written_file_has_the_attributes_keras_2_decodes(tmp_path, flat_network):
    import h5py

    path = tmp_path / "ours.h5"
    write_legacy_h5(path, flat_network)
    with h5py.File(path) as file:
        assert [name.decode() for name in file.attrs["layer_names"]] == ["input", "block1_conv1", "block1_conv2"]
        # Keras 2 takes version 1 for granted where there is none, and would flip the kernels.
        assert file.attrs["keras_version"].decode().startswith("2.")
        weights = [name.decode() for name in file["block1_conv1"].attrs["weight_names"]]
        assert weights == ["block1_conv1/kernel:0", "block1_conv1/bias:0"]
        assert file["block1_conv1"][weights[0]].shape == (3, 3, 3, 4)
        assert len(file["input"].attrs["weight_names"]) == 0
