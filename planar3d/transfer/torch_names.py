"""Torch's and Keras' names of layers, network by network, and the kinds of layers.

Keras' names are those of keras.applications, which planar3d's own 2D networks also use. Different names of one network
in torchvision, timm and EfficientNet-PyTorch are in one table, as they are never ambiguous.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import cache, partial

from planar3d.errors import WeightsError

Names = dict[str, str]  # from torch's layers to Keras'

# The kinds of layers by the ends of their names in Keras; all others are convolutions.
_KINDS = {"bn": "normalization", "dwconv": "depthwise", "fc1": "dense on 7×7", "fc2": "dense", "predictions": "dense"}

# The parts of an EfficientNet's block: in Keras, the name after the block's.
_TIMM_ATTENTION = {"se.conv_reduce": "se_reduce", "se.conv_expand": "se_expand"}
# timm counts a block's convolutions, and the first stage's blocks have no expansion.
_TIMM_FIRST_STAGE = _TIMM_ATTENTION | {"conv_dw": "dwconv", "bn1": "bn", "conv_pw": "project_conv", "bn2": "project_bn"}
_TIMM_STAGE = _TIMM_ATTENTION | {
    "conv_pw": "expand_conv",
    "bn1": "expand_bn",
    "conv_dw": "dwconv",
    "bn2": "bn",
    "conv_pwl": "project_conv",
    "bn3": "project_bn",
}
_PYTORCH_BLOCK = {
    "_expand_conv": "expand_conv",
    "_bn0": "expand_bn",
    "_depthwise_conv": "dwconv",
    "_bn1": "bn",
    "_se_reduce": "se_reduce",
    "_se_expand": "se_expand",
    "_project_conv": "project_conv",
    "_bn2": "project_bn",
}
# In timm, in EfficientNet-PyTorch, and in the released code of Messaoudi 2023.
_ENDS = {
    **dict.fromkeys(("conv_stem", "_conv_stem", "conv1"), "stem_conv"),
    **dict.fromkeys(("bn1", "_bn0", "bnorm1"), "stem_bn"),
    **dict.fromkeys(("conv_head", "_conv_head"), "top_conv"),
    **dict.fromkeys(("bn2", "_bn1", "norm_head"), "top_bn"),
    **dict.fromkeys(("classifier", "_fc"), "predictions"),
}

_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # the blocks of each stage of EfficientNet-B0


def resnet(blocks: Sequence[int], convolutions: int) -> Names:
    """A ResNet's names in torchvision and timm, by the blocks of each stage and the convolutions per block, 2 or 3."""
    names = {"conv1": "conv1_conv", "bn1": "conv1_bn", "fc": "predictions"}
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            torch, keras = f"layer{stage}.{block}", f"conv{stage + 1}_block{block + 1}"
            for i in range(1, convolutions + 1):
                names |= {f"{torch}.conv{i}": f"{keras}_{i}_conv", f"{torch}.bn{i}": f"{keras}_{i}_bn"}
        names[f"layer{stage}.0.downsample.0"] = f"conv{stage + 1}_block1_0_conv"
        names[f"layer{stage}.0.downsample.1"] = f"conv{stage + 1}_block1_0_bn"
    return names


def vgg(convolutions: Sequence[int]) -> Names:
    """A VGG's names in torchvision, and in timm, whose dense layers are convolutions."""
    names = {"classifier.0": "fc1", "classifier.3": "fc2", "classifier.6": "predictions"}
    names |= {"pre_logits.fc1": "fc1", "pre_logits.fc2": "fc2", "head.fc": "predictions"}
    index = 0
    for block, count in enumerate(convolutions, start=1):
        for i in range(1, count + 1):
            names[f"features.{index}"] = f"block{block}_conv{i}"
            index += 2  # an activation follows each convolution
        index += 1  # and a pooling each block
    return names


def efficientnet(depth: float = 1.0) -> Names:
    """An EfficientNet's names in timm, in EfficientNet-PyTorch, and in the released code of Messaoudi 2023.

    The second numbers blocks across all stages; the third has `enc0` for timm's `blocks.0`, and other names for the
    ends. `depth` is the factor of the number of blocks in each stage.

    Source: Tan & Le 2019, table 1 and section 3.3.
    """
    names = dict(_ENDS)
    number = 0
    for stage, count in enumerate(_REPEATS):
        timm = _TIMM_STAGE if stage else _TIMM_FIRST_STAGE
        for i in range(math.ceil(depth * count)):
            block = f"block{stage + 1}{chr(ord('a') + i)}_"
            for stem in (f"blocks.{stage}.{i}", f"enc{stage}.{i}"):
                names |= {f"{stem}.{part}": block + name for part, name in timm.items()}
            names |= {f"_blocks.{number}.{part}": block + name for part, name in _PYTORCH_BLOCK.items()}
            number += 1
    return names


DEPTHS = (1.0, 1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1)  # of EfficientNet-B0 to B7, the factors of the number of blocks
# By the name of the Keras network.
_TABLES: dict[str, Callable[[], Names]] = {
    "resnet18": lambda: resnet((2, 2, 2, 2), 2),
    "resnet34": lambda: resnet((3, 4, 6, 3), 2),
    "resnet50": lambda: resnet((3, 4, 6, 3), 3),
    "vgg16": lambda: vgg((2, 2, 3, 3, 3)),
    "vgg19": lambda: vgg((2, 2, 4, 4, 4)),
    "efficientnet_lite0": efficientnet,
    **{f"efficientnetb{number}": partial(efficientnet, depth) for number, depth in enumerate(DEPTHS)},
}


@cache
def torch_names(network: str) -> Names:
    """The table of a network with this name in Keras, from torch's layers to Keras'.

    >>> torch_names("resnet34")["layer2.0.downsample.0"]
    'conv3_block1_0_conv'
    """
    if network not in _TABLES:
        raise WeightsError(f"There is no table of torch's names for {network!r}; there are: {', '.join(_TABLES)}.")
    return _TABLES[network]()


def kind_of(layer: str) -> str:
    """The kind of a layer with this name in Keras, a key of `torch_weights.KERNELS` or `normalization`."""
    return next((kind for ending, kind in _KINDS.items() if layer.endswith(ending)), "convolution")


def stage_of(name: str) -> str | None:
    """The start of a layer's name that its stage of the network shares: `block3`, `layer1`, `blocks.0`."""
    found = re.match(r"[^\d/]*\d+", name)
    return found[0] if found else None


def stages_of(names: Names) -> set[str | None]:
    """The stages of a table in torch and in Keras, without dense layers: a user's head may replace them."""
    layers = (pair for pair in names.items() if not kind_of(pair[1]).startswith("dense"))
    return {stage_of(name) for pair in layers for name in pair} - {None}
