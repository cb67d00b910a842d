"""Weights in Keras' order of axes do what they did in torch's."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from planar3d.errors import WeightsError
from planar3d.transfer.torch_layout import keras_arrays
from planar3d.transfer.torch_names import torch_names

rng = np.random.default_rng(0)
NAMES = {"conv": "a_conv", "dw": "a_dwconv", "bn": "a_bn", "fc": "predictions", "top": "fc1"}


@pytest.mark.parametrize("stored", [(6, 5 * 49), (6, 5, 7, 7)], ids=["dense", "convolution"])
def test_a_dense_layer_on_channels_first_is_one_on_channels_last(stored):
    weight, x = rng.normal(size=stored), rng.normal(size=(5, 7, 7))
    kernel = keras_arrays({"top.weight": weight}, NAMES)["fc1/kernel"]
    assert_allclose(x.transpose(1, 2, 0).ravel() @ kernel, weight.reshape(6, -1) @ x.ravel())


def test_a_dense_layer_stored_as_a_convolution_is_dense():
    weight = rng.normal(size=(6, 5))
    for stored in (weight, weight[..., None, None]):
        assert_array_equal(keras_arrays({"fc.weight": stored}, NAMES)["predictions/kernel"], weight.T)


@pytest.mark.parametrize(("layer", "groups"), [("conv", 1), ("dw", 4)])
def test_convolutions_do_the_same(torch, layer, groups):
    import keras

    weight, x = torch.randn(4, 4 // groups, 3, 5), torch.randn(2, 4, 9, 10)
    found = keras_arrays({f"{layer}.weight": weight.numpy()}, NAMES)[f"{NAMES[layer]}/kernel"]
    operation = keras.ops.depthwise_conv if groups > 1 else keras.ops.conv
    ours = operation(x.numpy().transpose(0, 2, 3, 1), found, padding="valid", data_format="channels_last")
    theirs = torch.nn.functional.conv2d(x, weight, groups=groups).numpy().transpose(0, 2, 3, 1)
    assert_allclose(ours, theirs, atol=1e-5)


def test_normalization_has_four_weights_and_its_counter_is_none():
    state = {f"bn.{name}": rng.normal(size=3) for name in ("weight", "bias", "running_mean", "running_var")}
    found = keras_arrays({**state, "bn.num_batches_tracked": np.int64(5)}, NAMES)
    assert list(found) == ["a_bn/gamma", "a_bn/beta", "a_bn/moving_mean", "a_bn/moving_variance"]
    for array, original in zip(found.values(), state.values(), strict=True):
        assert_array_equal(array, original)


def test_arrays_in_keras_order_change_names_alone():
    kernel = rng.normal(size=(3, 5, 2, 4))
    assert_array_equal(keras_arrays({"conv.weight": kernel}, NAMES, "keras")["a_conv/kernel"], kernel)
    with pytest.raises(ValueError, match="layout='tensorflow' is unknown; choose one of: 'torch', 'keras'"):
        keras_arrays({}, NAMES, "tensorflow")


def test_what_the_table_does_not_know_keeps_its_name():
    assert set(keras_arrays({"head.weight": np.ones(3), "conv.scale": np.ones(3)}, NAMES)) == {
        "head.weight",
        "conv.scale",
    }


@pytest.mark.parametrize(("name", "shape"), [("conv", (3, 3)), ("dw", (3,)), ("top", (6, 50))])
def test_axes_that_no_such_layer_has_are_refused(name, shape):
    with pytest.raises(WeightsError, match=rf"{name}\.weight has the shape .*choose weights of this network"):
        keras_arrays({f"{name}.weight": np.zeros(shape)}, NAMES)


@pytest.mark.parametrize("prefix", ["module.", "student.backbone."])
def test_what_held_the_network_may_be_in_front_of_its_names(prefix):
    state = {f"{prefix}conv.bias": np.ones(3), f"{prefix}fc.bias": np.zeros(2), "other.conv.bias": np.full(3, 7)}
    found = keras_arrays(state, NAMES)
    assert set(found) == {"a_conv/bias", "predictions/bias", "other.conv.bias"}
    assert_array_equal(found["a_conv/bias"], np.ones(3))


def test_a_name_of_the_network_itself_needs_nothing_in_front():
    found = keras_arrays({"conv.bias": np.ones(3), "a.fc.bias": np.ones(2), "a.bn.bias": np.ones(2)}, NAMES)
    assert set(found) == {"a_conv/bias", "a.fc.bias", "a.bn.bias"}


def test_blocks_of_another_network_are_no_copies_of_this_one():
    """The layers of DenseNet's and ResNet-v2's blocks have names of a ResNet's first layers."""
    state = {f"blocks.{number}.{layer}.weight": np.ones(3) for number in range(5) for layer in ("conv1", "bn1")}
    assert keras_arrays(state, torch_names("resnet18")).keys() == state.keys()


def test_two_copies_of_the_network_in_one_file_are_refused():
    state = {f"{who}.{layer}.bias": np.ones(3) for who in ("teacher", "student") for layer in ("conv", "fc")}
    with pytest.raises(WeightsError, match=r"2 times, with student\. and teacher\. in front.*Save the state"):
        keras_arrays(state, NAMES)
