"""An encoder takes the weights of its own network, of all its layers, under names of Keras or torch."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from narrow_networks import narrow_networks
from numpy.testing import assert_allclose, assert_array_equal

from planar3d.errors import WeightsError
from planar3d.networks.encoder_weights import VGG16_SOURCE, fill_encoder, fill_flat, known_source
from planar3d.networks.planar_resunet import PlanarResUNet
from planar3d.networks.vgg16 import encoder_layer_names
from planar3d.transfer.published_models import find_model
from planar3d.transfer.rehearsal import read_arrays
from planar3d.transfer.torch_names import torch_names

FIRST, SECOND = "conv1_conv", "conv2_block1_1_conv"
NARROW = {"input_shape": (16, 16, 16, 1), "decoder_filters": (4,) * 4, "bridge_filters": 4}
KERNEL = np.random.default_rng(0).normal(size=(3, 3, 3, 3)).astype(np.float32)


def two_layers():
    layers = [keras.layers.Conv2D(3, 3, use_bias=False, name=name) for name in (FIRST, SECOND)]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers], name="resnet18")


def kept(path, *names, **more):
    np.savez(path, **dict.fromkeys(names, KERNEL), **more)
    return path


@pytest.mark.parametrize(
    "names",
    [
        ("conv1.weight", "layer1.0.conv1.weight"),
        ("module.conv1.weight", "module.layer1.0.conv1.weight"),
        (f"{FIRST}/kernel", f"{SECOND}/kernel"),
    ],
    ids=["torch's", "DataParallel's", "Keras'"],
)
def test_a_head_may_be_left_over(names, tmp_path):
    network = two_layers()
    head = {"other.weight": np.ones((2, 3)), "decoder1/kernel": KERNEL}
    fill_flat(network, kept(tmp_path / "a.npz", *names, **head), "")
    expected = KERNEL if "/" in names[0] else KERNEL.transpose(2, 3, 1, 0)
    assert_array_equal(network.get_layer(SECOND).kernel, expected)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("conv1.weight",), f"it lacks 1 weight: {SECOND}/kernel"),
        # A ResNet-34 has all layers of a ResNet-18.
        (
            ("conv1.weight", "layer1.0.conv1.weight", "layer1.2.conv1.weight"),
            r"it is of another network.*layer1\.2\.conv1",
        ),
        (
            ("module.conv1.weight", "module.layer1.0.conv1.weight", "module.layer1.2.conv1.weight"),
            r"it is of another network.*layer1\.2\.conv1",
        ),
        ((f"{FIRST}/kernel", f"{SECOND}/kernel", "conv2_block3_1_conv/kernel"), "it is of another network.*block3_1"),
        # The ResNets of keras.applications have biases.
        ((f"{FIRST}/kernel", f"{SECOND}/kernel", f"{SECOND}/bias"), f"it is of another network.*{SECOND}/bias"),
    ],
)
def test_another_network_s_weights_are_refused(names, message, tmp_path):
    with pytest.raises(WeightsError, match=rf"a\.npz does not fit the encoder resnet18: {message}"):
        fill_flat(two_layers(), kept(tmp_path / "a.npz", *names), "")


def test_vgg16_does_not_take_vgg19_s_weights_nor_a_few_of_its_own(tmp_path):
    inputs = keras.Input((2, 8, 8, 3))
    first, second = (keras.layers.Conv3D(3, (1, 3, 3), name=f"block3_conv{number}") for number in (1, 2))
    network = keras.Model(inputs, second(first(inputs)))
    few = {f"{layer.name}/bias": np.ones(3) for layer in (first, second)} | {"block3_conv1/kernel": KERNEL}
    with pytest.raises(WeightsError, match="it lacks 1 weight: block3_conv2/kernel"):
        fill_encoder(network, kept(tmp_path / "few.npz", **few))
    more = kept(tmp_path / "more.npz", "block3_conv2/kernel", "block3_conv4/kernel", **few)
    with pytest.raises(
        WeightsError, match="it is of another network, with 1 weight that vgg16 does not have: block3_conv4"
    ):
        fill_encoder(network, more)


def vgg16_arrays(layer_name, transposed):
    """Kernels and biases of ones under the names that `layer_name` gives."""
    network, rng = PlanarResUNet(**NARROW, encoder_weights=None), np.random.default_rng(0)
    arrays = {}
    for name in encoder_layer_names(4):
        *_, inputs, filters = network.get_layer(name).kernel.shape
        kernel = rng.normal(size=(3, 3, 3 if name == "block1_conv1" else inputs, filters))
        kernel, (weight, bias) = kernel.astype(np.float32), layer_name(name)
        arrays |= {weight: kernel.transpose(3, 2, 0, 1) if transposed else kernel, bias: np.ones(filters, np.float32)}
    return arrays


def in_torch(name):
    (torch_s,) = (torch for torch, keras_s in torch_names("vgg16").items() if keras_s == name)
    return f"{torch_s}.weight", f"{torch_s}.bias"


def in_keras(name):
    return f"{name}/kernel", f"{name}/bias"


def test_vgg16_takes_torch_s_weights(tmp_path, monkeypatch):
    narrow_networks(monkeypatch)
    network = PlanarResUNet(**NARROW, encoder_weights=None)
    arrays = vgg16_arrays(in_torch, transposed=True)
    np.savez(tmp_path / "a.npz", **arrays, **{"classifier.6.1.weight": np.ones((2, 3))})  # a head of one's own
    fill_encoder(network, tmp_path / "a.npz")
    for name in encoder_layer_names(4)[1:]:  # the first is fitted to one channel
        assert_array_equal(network.get_layer(name).kernel[0], arrays[in_torch(name)[0]].transpose(2, 3, 1, 0))


def test_biases_are_matched_to_the_inputs_that_the_weights_expect(tmp_path):
    def bias(weights):
        network = PlanarResUNet(**NARROW, encoder_weights=weights, encoder_range="imagenet")
        return np.asarray(network.get_layer("block4_conv3").bias)

    with pytest.MonkeyPatch.context() as patch:
        narrow_networks(patch)
        np.savez(tmp_path / "keras.npz", **vgg16_arrays(in_keras, transposed=False))
        assert_allclose(bias(tmp_path / "keras.npz"), 1 / 128)
        np.savez(tmp_path / "torch.npz", **vgg16_arrays(in_torch, transposed=True))
        assert_allclose(bias(tmp_path / "torch.npz"), 255 * np.mean([0.229, 0.224, 0.225]) / 128, rtol=1e-6)
    # A network that was trained on prepared scans expects them.
    assert_array_equal(bias("ms-flair-open"), read_arrays(find_model("ms-flair-open"))["block4_conv3/bias"])


def test_of_a_trained_network_the_encoder_alone_is_taken():
    network = PlanarResUNet((16, 16, 16, 3), encoder_weights="ms-flair-open")
    trained = read_arrays(find_model("ms-flair-open"))
    for layer in network.layers:
        if layer.weights:
            is_trained = np.array_equal(layer.kernel, trained[f"{layer.name}/kernel"])
            assert is_trained == (layer.name in encoder_layer_names(4))


def test_an_encoder_of_a_published_model_is_credited_to_it_with_its_licence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert VGG16_SOURCE.credit("ms-flair-open") == "from the published model ms-flair-open (CC BY 4.0)"
    assert VGG16_SOURCE.origin("ms-flair-open") == "the published model ms-flair-open"
    np.savez("arrays.npz", kernel=np.ones(3))
    Path("arrays.npz").rename("ms-flair-open")  # a file goes before a model of its name
    assert VGG16_SOURCE.credit("ms-flair-open") == "ms-flair-open, whose licence is not stated"


def test_an_encoder_of_a_trained_network_s_file_is_said_to_be_that_network_s(tmp_path, monkeypatch):
    """Also if training kept ImageNet's convolutions, as it does where the encoder is frozen."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(find_model("ms-flair-open"), "mine.weights.h5")
    for source in VGG16_SOURCE, known_source("ResNet-34", "resnet34-b627a593.pth"):
        assert source.origin("mine.weights.h5") == "the encoder of ms-flair-open, mine.weights.h5"
        assert source.credit("mine.weights.h5") == "ms-flair-open, mine.weights.h5, whose licence is CC BY 4.0"
