"""Torch's and Keras' names of layers, network by network, and the kind of each layer.

Keras' names are those of keras.applications, which planar3d's own 2D networks also use. Different names of one network
in torchvision, timm and EfficientNet-PyTorch are in one table, as they are never ambiguous.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

from planar3d.errors import WeightsError


class KerasLayer(NamedTuple):
    """A layer's name in Keras, and its kind, a key of `torch_layout.KINDS`."""

    name: str
    kind: str


Names = dict[str, KerasLayer]

# The parts of an EfficientNet's block in Keras: the name after the block's, and the kind.
_EXPAND, _EXPAND_BN = ("expand_conv", "convolution"), ("expand_bn", "normalization")
_DEPTHWISE, _DEPTHWISE_BN = ("dwconv", "depthwise"), ("bn", "normalization")
_REDUCE, _RESTORE = ("se_reduce", "convolution"), ("se_expand", "convolution")
_PROJECT, _PROJECT_BN = ("project_conv", "convolution"), ("project_bn", "normalization")

_TIMM_ATTENTION = {"se.conv_reduce": _REDUCE, "se.conv_expand": _RESTORE}
# timm counts a block's convolutions, and the first stage's blocks have no expansion.
_TIMM_FIRST_STAGE = {
    **_TIMM_ATTENTION,
    **{"conv_dw": _DEPTHWISE, "bn1": _DEPTHWISE_BN, "conv_pw": _PROJECT, "bn2": _PROJECT_BN},
}
_TIMM_STAGE = {
    **_TIMM_ATTENTION,
    **{"conv_pw": _EXPAND, "bn1": _EXPAND_BN, "conv_dw": _DEPTHWISE, "bn2": _DEPTHWISE_BN},
    **{"conv_pwl": _PROJECT, "bn3": _PROJECT_BN},
}
_PYTORCH_BLOCK = {
    **{"_expand_conv": _EXPAND, "_bn0": _EXPAND_BN, "_depthwise_conv": _DEPTHWISE, "_bn1": _DEPTHWISE_BN},
    **{"_se_reduce": _REDUCE, "_se_expand": _RESTORE, "_project_conv": _PROJECT, "_bn2": _PROJECT_BN},
}
_ENDS = {
    **dict.fromkeys(("conv_stem", "_conv_stem", "conv1"), KerasLayer("stem_conv", "convolution")),
    **dict.fromkeys(("bn1", "_bn0", "bnorm1"), KerasLayer("stem_bn", "normalization")),
    **dict.fromkeys(("conv_head", "_conv_head"), KerasLayer("top_conv", "convolution")),
    **dict.fromkeys(("bn2", "_bn1", "norm_head"), KerasLayer("top_bn", "normalization")),
    **dict.fromkeys(("classifier", "_fc"), KerasLayer("predictions", "dense")),
}


_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # the blocks of each stage of EfficientNet-B0


def resnet(blocks: Sequence[int], convolutions: int) -> Names:
    """A ResNet's names in torchvision and timm.

    Args:
        blocks: blocks of each stage.
        convolutions: per block: two in a basic block, three in a bottleneck.
    """
    names = {
        "conv1": KerasLayer("conv1_conv", "convolution"),
        "bn1": KerasLayer("conv1_bn", "normalization"),
        "fc": KerasLayer("predictions", "dense"),
    }
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            torch, keras = f"layer{stage}.{block}", f"conv{stage + 1}_block{block + 1}"
            for i in range(1, convolutions + 1):
                names[f"{torch}.conv{i}"] = KerasLayer(f"{keras}_{i}_conv", "convolution")
                names[f"{torch}.bn{i}"] = KerasLayer(f"{keras}_{i}_bn", "normalization")
        names[f"layer{stage}.0.downsample.0"] = KerasLayer(f"conv{stage + 1}_block1_0_conv", "convolution")
        names[f"layer{stage}.0.downsample.1"] = KerasLayer(f"conv{stage + 1}_block1_0_bn", "normalization")
    return names


def vgg(convolutions: Sequence[int]) -> Names:
    """A VGG's names in torchvision, and in timm, whose dense layers are convolutions."""
    names, index = {}, 0
    for block, count in enumerate(convolutions, start=1):
        for i in range(1, count + 1):
            names[f"features.{index}"] = KerasLayer(f"block{block}_conv{i}", "convolution")
            index += 2  # an activation follows each convolution
        index += 1  # and a pooling each block
    for torch, timm, layer in (
        ("classifier.0", "pre_logits.fc1", KerasLayer("fc1", "dense on 7×7")),
        ("classifier.3", "pre_logits.fc2", KerasLayer("fc2", "dense")),
        ("classifier.6", "head.fc", KerasLayer("predictions", "dense")),
    ):
        names[torch] = names[timm] = layer
    return names


def efficientnet(depth: float = 1.0) -> Names:
    """An EfficientNet's names in timm, in EfficientNet-PyTorch, and in the released code of Messaoudi 2023.

    The second numbers blocks across all stages; the third has `enc0` for timm's `blocks.0`, and other names for the
    ends.

    Args:
        depth: the factor of the number of blocks in each stage.

    Source: Tan & Le 2019, table 1 and section 3.3.
    """
    names = dict(_ENDS)
    number = 0
    for stage, count in enumerate(_REPEATS):
        timm = _TIMM_STAGE if stage else _TIMM_FIRST_STAGE
        for i in range(math.ceil(depth * count)):
            block = f"block{stage + 1}{chr(ord('a') + i)}_"
            for stem in (f"blocks.{stage}.{i}", f"enc{stage}.{i}"):
                names.update({f"{stem}.{part}": KerasLayer(block + k, kind) for part, (k, kind) in timm.items()})
            names.update(
                {f"_blocks.{number}.{part}": KerasLayer(block + k, kind) for part, (k, kind) in _PYTORCH_BLOCK.items()}
            )
            number += 1
    return names


_DEPTHS = (1.0, 1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1)  # of EfficientNet-B0 to B7
# By the name of the Keras network.
_TABLES: dict[str, Callable[[], Names]] = {
    "resnet18": lambda: resnet((2, 2, 2, 2), 2),
    "resnet34": lambda: resnet((3, 4, 6, 3), 2),
    "resnet50": lambda: resnet((3, 4, 6, 3), 3),
    "vgg16": lambda: vgg((2, 2, 3, 3, 3)),
    "vgg19": lambda: vgg((2, 2, 4, 4, 4)),
    "efficientnet_lite0": efficientnet,
    **{f"efficientnetb{number}": partial(efficientnet, depth) for number, depth in enumerate(_DEPTHS)},
}


@cache
def torch_names(network: str) -> Names:
    """The table of a network, from torch's layers to Keras'.

    >>> torch_names("resnet34")["layer2.0.downsample.0"]
    KerasLayer(name='conv3_block1_0_conv', kind='convolution')

    Args:
        network: its name in Keras: `resnet34`, `vgg16`, `efficientnetb0`, `efficientnet_lite0`, ….
    """
    if network not in _TABLES:
        raise WeightsError(f"There is no table of torch's names for {network!r}; there are: {', '.join(_TABLES)}.")
    return _TABLES[network]()
