"""Loading torch state dictionaries into Keras networks."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from planar3d.transfer.torch_layout import keras_arrays
from planar3d.transfer.torch_names import torch_names
from planar3d.transfer.transplant import Report, fill_from, transplant

if TYPE_CHECKING:
    import keras


# Of ImageNet's RGB values in [0, 1]; torchvision's and nearly all of timm's networks expect (x - mean) / std.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
    EfficientNets do not, since they pad symmetrically and normalize with another epsilon.

    Args:
        network: a Keras network, 2D or converted to 3D, whose layers have keras.applications' names.
        file: `.safetensors`, `.pth`, or an `.npz` of torch's names.
        names: name of the network's table in `torch_names`; default: the network's own name, or for a converted
            network the name of its 2D network.
        strict: whether a weight of the network that is missing in the file is an error.
        layout: `"torch"`, or `"keras"` for a file with axes in Keras' order and torch names.
        mean: of the RGB values in [0, 1], for a network that normalizes its input.
        std: likewise.

    Returns:
        The report of matched, missing and unused weights, with the entry of a known file; in a network without top the
        classifier is unused.

    Raises:
        WeightsError: there is no table for the network, the file cannot be read, nothing matched, a shape does not fit,
            or with `strict` something is missing.
    """
    import keras

    from planar3d.graph.keras_graph import check_model, layers_within

    check_model(network)
    table = torch_names(names or _name_in_2d(network))
    normalizations = layers_within(network, keras.layers.Normalization)
    own = {"mean": np.asarray(mean, np.float32), "variance": np.square(std, dtype=np.float32), "count": np.zeros(())}
    constants = {f"{layer.name}/{name}": array for layer in normalizations for name, array in own.items()}
    return fill_from(
        file, lambda state: transplant(network, keras_arrays(state, table, layout) | constants, strict=strict)
    )


def _name_in_2d(network: "keras.Model") -> str:
    """The name of a converted network's 2D network, also after loading from a file; else its own name."""
    report = getattr(network, "transfer_report", None)
    return report.source if report else network.name.removesuffix("_features").removesuffix("_3d")
