"""An encoder takes the weights of its own network, of all its layers, under names of Keras or torch."""

from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from planar3d.errors import WeightsError
from planar3d.networks.encoder_weights import VGG16_SOURCE, fill_encoder, fill_flat
from planar3d.networks.planar_resunet import PlanarResUNet
from planar3d.networks.vgg16 import encoder_layer_names
from planar3d.transfer.torch_names import torch_names

FIRST, SECOND = "conv1_conv", "conv2_block1_1_conv"
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


def test_vgg16_takes_torch_s_weights(tmp_path):
    network = PlanarResUNet((16, 16, 16, 1), encoder_weights=None, decoder_filters=(4,) * 4, bridge_filters=4)
    keras_s = {name: torch for torch, name in torch_names("vgg16").items()}
    state = {"classifier.6.1.weight": np.ones((2, 3))}  # a head of one's own
    for name in encoder_layer_names(4):
        *_, inputs, filters = network.get_layer(name).kernel.shape
        inputs = 3 if name == "block1_conv1" else inputs
        kernel = np.random.default_rng(0).normal(size=(filters, inputs, 3, 3)).astype(np.float32)
        state |= {f"{keras_s[name]}.weight": kernel, f"{keras_s[name]}.bias": np.ones(filters, np.float32)}
    np.savez(tmp_path / "a.npz", **state)
    fill_encoder(network, tmp_path / "a.npz")
    assert_array_equal(network.get_layer("block4_conv3").kernel[0], kernel.transpose(2, 3, 1, 0))


def test_an_encoder_of_a_published_model_is_credited_to_it_with_its_licence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert VGG16_SOURCE.credit("ms-flair-open") == "from the published model ms-flair-open (CC BY 4.0)"
    assert VGG16_SOURCE.origin("ms-flair-open") == "the published model ms-flair-open"
    np.savez("arrays.npz", kernel=np.ones(3))
    Path("arrays.npz").rename("ms-flair-open")  # a file goes before a model of its name
    assert VGG16_SOURCE.credit("ms-flair-open") == "ms-flair-open, whose licence is not stated"
