"""The tables name every layer of their Keras networks that has weights, and nothing that is in none."""

from functools import cache

import keras
import pytest
from valueless import valueless

from planar3d.errors import WeightsError
from planar3d.networks.efficientnet import EfficientNetLite0
from planar3d.networks.resnet import ResNet18, ResNet34, ResNet50
from planar3d.transfer.torch_names import kind_of, torch_names
from planar3d.transfer.torch_weights import KERNELS

NETWORKS = {
    **{"resnet18": ResNet18, "resnet34": ResNet34, "resnet50": ResNet50, "efficientnet_lite0": EfficientNetLite0},
    **{"vgg16": keras.applications.VGG16, "vgg19": keras.applications.VGG19},
    **{"efficientnetb0": keras.applications.EfficientNetB0, "efficientnetb1": keras.applications.EfficientNetB1},
}


@cache
def build(name):
    arguments = {"weights": None} if name.startswith(("vgg", "efficientnetb")) else {}
    with valueless():
        return NETWORKS[name](input_shape=(32, 32, 3), classes=3, **arguments)


def schemes(names):
    """A network's table split by whose names they are: those of EfficientNet-PyTorch start with an underscore."""
    ours = {torch: layer for torch, layer in names.items() if torch.startswith("_")}
    return [table for table in (ours, {t: layer for t, layer in names.items() if t not in ours}) if table]


@pytest.mark.parametrize("name", NETWORKS)
def test_each_scheme_names_every_layer_that_has_weights(name):
    network = build(name)
    assert network.name == name
    with_weights = {
        layer.name for layer in network.layers if layer.weights and not isinstance(layer, keras.layers.Normalization)
    }
    for table in schemes(torch_names(name)):
        named = set(table.values())
        assert with_weights <= named
        # Lite0 has no squeeze-and-excitation, a first stage no expansion, and basic blocks of equal width no shortcut.
        assert all(
            part.endswith(("se_reduce", "se_expand", "expand_conv", "expand_bn", "_0_conv", "_0_bn"))
            for part in named - with_weights
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_kinds_are_those_of_the_layers(name):
    network = build(name)
    kinds = {"Conv2D": "convolution", "DepthwiseConv2D": "depthwise", "BatchNormalization": "normalization"}
    layers = {layer.name: type(layer).__name__ for layer in network.layers}
    for layer in torch_names(name).values():
        if layer in layers:
            kind = kind_of(layer)
            assert kind in {*KERNELS, "normalization"} and kind.startswith(kinds.get(layers[layer], "dense"))


def test_an_unknown_network_is_an_error_that_lists_the_known():
    with pytest.raises(WeightsError, match=r"no table of torch's names for 'resnet35'; there are: resnet18"):
        torch_names("resnet35")
