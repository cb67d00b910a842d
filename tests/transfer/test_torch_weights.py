"""Torch's weights do in Keras what they did in torch; a network is filled with all, or with none and a reason."""

import keras
import numpy as np
import pytest
from flat_networks import unchanged
from numpy.testing import assert_allclose, assert_array_equal

from planar3d.errors import WeightsError
from planar3d.transfer import known_files
from planar3d.transfer.digests import file_sha256
from planar3d.transfer.known_files import KnownFile
from planar3d.transfer.torch_names import torch_names
from planar3d.transfer.torch_weights import IMAGENET_MEAN, IMAGENET_STD, keras_arrays, load_torch

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
    with pytest.raises(WeightsError, match=r"2 times, with the prefixes student\. and teacher\.\. Save the state"):
        keras_arrays(state, NAMES)


def network(*behind, first=(), convolution=keras.layers.Conv2D, kernel=3, rank=2):
    """A network with a layer of VGG-16's, named as it is."""
    layers = [*first, convolution(4, kernel, name="block1_conv1"), *behind]
    return keras.Sequential([keras.Input((8,) * rank + (3,)), *layers], name="vgg16")


@pytest.fixture
def file(tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    rng = np.random.default_rng(0)
    state = {
        "features.0.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "features.0.bias": rng.normal(size=4).astype(np.float32),
        "head.weight": np.ones((2, 2), np.float32),
    }
    save_file(state, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors", state


def test_the_report_tells_what_matched_and_what_is_unused(file):
    path, state = file
    net = network()
    report = load_torch(net, path)
    assert [weight.name for weight in report.matched] == ["block1_conv1/kernel", "block1_conv1/bias"]
    assert [weight.name for weight in report.unused] == ["head.weight"] and not report.missing
    assert report.file == str(path)
    assert_array_equal(net.weights[0], state["features.0.weight"].transpose(2, 3, 1, 0))


def test_of_a_known_file_the_report_says_whose_it_is_and_what_it_expects(file, monkeypatch):
    path, digest = file[0], f"sha256:{file_sha256(file[0])}"
    known = KnownFile("vgg16", "a publisher", "CC BY 4.0", "imagenet", digest, None)
    assert load_torch(network(), path).known is None
    monkeypatch.setattr(known_files, "known_files", lambda: {"vgg16.safetensors": known})
    report = load_torch(network(), path)
    assert report.known == known
    assert "from a publisher; licence: CC BY 4.0; expects RGB, (x / 255 - mean) / std of ImageNet" in str(report)


def test_a_3d_network_of_the_same_names_gets_planar_kernels(file):
    path, state = file
    net = network(convolution=keras.layers.Conv3D, kernel=(1, 3, 3), rank=3)
    load_torch(net, path)
    assert_array_equal(net.weights[0][0], state["features.0.weight"].transpose(2, 3, 1, 0))


def test_what_is_missing_is_an_error_unless_allowed(file):
    net = network(keras.layers.Conv2D(5, 3, name="block1_conv2"))
    with (
        unchanged(net),
        pytest.raises(WeightsError, match=r"a\.safetensors: vgg16 lacks 2 weights: block1_conv2/kernel"),
    ):
        load_torch(net, file[0])
    assert [weight.name for weight in load_torch(net, file[0], strict=False).missing] == [
        "block1_conv2/kernel",
        "block1_conv2/bias",
    ]


def test_a_file_of_another_network_is_an_error(file):
    with pytest.raises(WeightsError, match=r"a\.safetensors: Nothing matched"):
        load_torch(network(), file[0], names="resnet34")
    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)], name="mine")
    with pytest.raises(WeightsError, match="no table of torch's names for 'mine'"):
        load_torch(net, file[0])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_deeper_network_s_file_is_an_error_unless_allowed(prefix, tmp_path):
    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, use_bias=False, name="conv1_conv")])
    kernel = np.ones((4, 3, 3, 3), np.float32)
    # A ResNet-34 has all layers of a ResNet-18.
    state = {f"{prefix}{name}": kernel for name in ("conv1.weight", "layer1.0.conv1.weight", "layer1.2.conv1.weight")}
    np.savez(tmp_path / "a.npz", **state)
    with (
        unchanged(net),
        pytest.raises(WeightsError, match=r"a\.npz: .*another network, with 1 layer .*layer1\.2\.conv1"),
    ):
        load_torch(net, tmp_path / "a.npz", names="resnet18")
    assert load_torch(net, tmp_path / "a.npz", names="resnet18", strict=False).matched


def test_a_damaged_file_is_an_error(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes((10**12).to_bytes(8, "little") + b"{}")
    with pytest.raises(WeightsError, match=r"a\.safetensors cannot be read as weights"):
        load_torch(network(), path)
    with pytest.raises(WeightsError, match=r"b\.safetensors does not exist"):
        load_torch(network(), tmp_path / "b.safetensors")


def test_an_npz_of_torch_names_in_keras_order_is_read(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32)
    np.savez(tmp_path / "a.npz", **{"features.0.weight": kernel, "features.0.bias": np.ones(4, np.float32)})
    net = network()
    load_torch(net, tmp_path / "a.npz", layout="keras")
    assert_array_equal(net.weights[0], kernel)


def test_a_network_that_normalizes_its_input_takes_grey_levels_even_if_it_was_traced_before(file):
    bare, whole = network(), network(first=(keras.layers.Rescaling(1 / 255), keras.layers.Normalization()))
    grey = np.random.default_rng(0).uniform(0, 255, (1, 8, 8, 3)).astype(np.float32)
    whole.predict(grey, verbose=0)
    load_torch(bare, file[0])
    load_torch(whole, file[0])
    normalized = (grey / 255 - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    assert_allclose(whole.predict(grey, verbose=0), bare.predict(normalized, verbose=0), atol=1e-4)


def test_efficientnet_b0_computes_what_timm_does(torch, tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    theirs = timm.create_model("tf_efficientnet_b0").eval()
    save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    ours = keras.applications.EfficientNetB0(weights=None, input_shape=(64, 64, 3), classifier_activation=None)
    load_torch(ours, tmp_path / "a.safetensors")
    grey = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    normalized = (grey / 255 - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    with torch.no_grad():
        logits = theirs(torch.from_numpy(normalized.transpose(0, 3, 1, 2).copy()))
    assert_allclose(ours(grey), logits, atol=1e-4)
