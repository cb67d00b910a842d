"""Torch state dictionaries in Keras' order of axes and under Keras' names, and loading them into networks."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from planar3d.errors import WeightsError
from planar3d.sections import check_choice
from planar3d.transfer.torch_names import Names, kind_of, stage_of, stages_of, torch_names
from planar3d.transfer.transplant import Report, fill_from, transplant
from planar3d.wording import counted, listed

if TYPE_CHECKING:
    import keras

# Of ImageNet's RGB values in [0, 1]; torchvision's and nearly all of timm's networks expect (x - mean) / std.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# By a layer's kind, the change of its kernel from torch's order of axes to Keras'.
KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    # (cout, cin, kh, kw) → (kh, kw, cin, cout)
    "convolution": lambda kernel: kernel.transpose(2, 3, 1, 0),
    # (channels, 1, kh, kw) → (kh, kw, channels, 1)
    "depthwise": lambda kernel: kernel.transpose(2, 3, 0, 1),
    # (out, in), or (out, in, 1, 1) for a convolution → (in, out)
    "dense": lambda kernel: kernel.reshape(len(kernel), -1).T,
    # (out, channels · 7 · 7), channels flattened first → (7 · 7 · channels, out), channels flattened last
    "dense on 7×7": lambda kernel: kernel.reshape(len(kernel), -1, 7, 7).transpose(2, 3, 1, 0).reshape(-1, len(kernel)),
}
# The names of weights in Keras, of layers with kernels and of normalization.
_WEIGHTS = {"weight": "kernel", "bias": "bias"}
_NORMALIZATION = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
# A counter in torch's batch normalization, not needed for inference.
_COUNTER = "num_batches_tracked"


def load_torch(
    network: "keras.Model",
    file: str | os.PathLike[str],
    names: str | None = None,
    *,
    strict: bool = True,
    layout: str = "torch",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Report:
    """Load a torch state dictionary into a Keras network; on an error no weight is changed.

    The EfficientNets of keras.applications accept grey levels of 0 to 255 and normalize them internally; this
    normalization, which torch does outside its networks, is set to `mean` and `std`. All other networks expect torch's
    input, (x / 255 - mean) / std, RGB. This includes keras.applications' VGG with torch weights, for which its own
    `preprocess_input` (BGR, means subtracted) is wrong.

    The EfficientNets are TensorFlow's: timm's `tf_efficientnet_*` give the same results. torchvision's and timm's other
    EfficientNets do not, since they pad symmetrically and normalize with another epsilon. Nor do timm's ResNets with
    anti-aliased strides (`resnetblur*`, `resnetaa*`). A state dictionary shows none of these differences.

    Args:
        network: a Keras network, 2D or converted to 3D, whose layers have keras.applications' names.
        file: `.safetensors`, `.pth`, or an `.npz` of torch's names.
        names: name of the network's table in `torch_names`; default: the network's own name, or for a converted
            network the name of its 2D network.
        strict: whether a weight of the network that is missing in the file is an error, and a layer in the file that
            the network's stages lack.
        layout: `"torch"`, or `"keras"` for a file with axes in Keras' order and torch names.
        mean, std: of the RGB values in [0, 1], for a network that normalizes its input.

    Returns:
        The report of matched, missing and unused weights, with the entry of a known file; in a network without top the
        classifier is unused.

    Raises:
        WeightsError: there is no table for the network, the file cannot be read, nothing matched, a shape does not fit,
            or with `strict` something is missing or the file is of a network with more layers.
    """
    import keras

    from planar3d.graph.keras_graph import check_model, layers_within

    check_model(network)
    table = torch_names(names or _name_in_2d(network))
    normalizations = layers_within(network, keras.layers.Normalization)
    own = {"mean": np.asarray(mean, np.float32), "variance": np.square(std, dtype=np.float32), "count": np.zeros(())}
    constants = {f"{layer.name}/{name}": array for layer in normalizations for name, array in own.items()}

    def fill(state: dict[str, np.ndarray]) -> Report:
        arrays = keras_arrays(state, table, layout)
        if strict:
            _check_layers(state, table, network.name)
        return transplant(network, arrays | constants, strict=strict)

    return fill_from(file, fill)


def _check_layers(state: Iterable[str], names: Names, network: str) -> None:
    """Refuse a file of a network with more layers in the same stages: ResNet-34's has all weights of a ResNet-18."""
    prefix, stages = prefix_of(state, names), stages_of(names)
    layers = dict.fromkeys(name.removeprefix(prefix).rpartition(".")[0] for name in state)
    more = [layer for layer in layers if layer not in names and stage_of(layer) in stages]
    if more:
        raise WeightsError(
            f"It is of another network, with {counted(more, 'layer')} that {network} does not have: {listed(more)}. "
            "Nothing was loaded; choose weights of this network, or load what it shares with strict=False."
        )


def _name_in_2d(network: "keras.Model") -> str:
    """The name of a converted network's 2D network, also after loading from a file; else its own name."""
    report = getattr(network, "transfer_report", None)
    return report.source if report else network.name.removesuffix("_features").removesuffix("_3d")


def keras_arrays(state: Mapping[str, np.ndarray], names: Names, layout: str = "torch") -> dict[str, np.ndarray]:
    """Convert a torch state dictionary to Keras' names and order of axes.

    Args:
        state: by torch's names: `layer1.0.conv1.weight`, …; or all with the name of what held the network in front:
            `module.`, `backbone.`, ….
        layout: order of axes of the arrays: `"torch"`, or `"keras"` if only the names are torch's.

    Returns:
        By `layer/weight`. Unknown arrays keep their names, for the report of unused arrays.

    Raises:
        WeightsError: the axes of an array cannot be those of its layer, or the network is in the file more than once.
    """
    check_choice("layout", layout, ("torch", "keras"), ValueError)
    prefix = prefix_of(state, names)
    arrays = {}
    for name, array in state.items():
        layer, _, weight = name.removeprefix(prefix).rpartition(".")
        if weight == _COUNTER:
            continue
        target = names.get(layer, "")
        kind = kind_of(target)
        label = (_NORMALIZATION if kind == "normalization" else _WEIGHTS).get(weight)
        if not target or label is None:
            arrays[name] = array
            continue
        try:
            arrays[f"{target}/{label}"] = KERNELS[kind](array) if (label, layout) == ("kernel", "torch") else array
        except ValueError as error:
            raise WeightsError(
                f"{name} has the shape {array.shape}, which no {kind} layer of torch has; choose weights of this "
                "network."
            ) from error
    return arrays


def prefix_of(state: Iterable[str], names: Names) -> str:
    """The prefix of the network's names: empty if any layer has its own name, else the prefix of most layers."""
    found: Counter[str] = Counter()
    for layer in {name.rpartition(".")[0] for name in state}:
        parts = layer.split(".")
        tails = [".".join(parts[start:]) for start in range(len(parts))]
        found.update(layer.removesuffix(tail) for tail in tails if tail in names)
    most = [prefix for prefix, count in found.items() if count == max(found.values())]
    # Blocks of other networks have a few layers of the same names: `conv1`, `bn1`.
    few = max(found.values(), default=0) < len(set(names.values())) / 4
    if not most or "" in found or (len(most) > 1 and few):
        return ""
    if len(most) > 1:
        raise WeightsError(
            f"The file has the network {len(most)} times, with the prefixes {' and '.join(sorted(most))}. Save the "
            "state dictionary of one of them."
        )
    return most[0]
