"""Keras networks filled from torch's state dictionaries."""

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
    """Fill a Keras network from a torch state dictionary, all of it or, on an error, nothing.

    The EfficientNets of keras.applications take grey levels of 0 to 255 and normalize them themselves; their
    normalization, which torch keeps outside of its networks, is set to `mean` and `std`. All others take what torch's
    take: (x / 255 - mean) / std, RGB; so does keras.applications' VGG with torch's weights, which its own
    `preprocess_input` (BGR, means subtracted) does not fit.

    The EfficientNets are those of TensorFlow: timm's `tf_efficientnet_*` compute the same; torchvision's and timm's
    other ones pad symmetrically and normalize with another epsilon, so they do not.

    Args:
        network: a Keras network, 2D or converted to 3D, whose layers have keras.applications' names.
        file: `.safetensors`, `.pth`, or an `.npz` of torch's names.
        names: the network's table, as `torch_names` has it; the network's own name if left out, and for a converted
            network that of its 2D network.
        strict: whether a weight of the network that is missing in the file is an error.
        layout: `"torch"`, or `"keras"` for a file whose axes are in Keras' order and whose names are torch's.
        mean: of the RGB values in [0, 1], for a network that normalizes its input.
        std: likewise.

    Returns:
        The report of matched, missing and unused weights, and of what is known of the file; a network without its top
        leaves the classifier unused.

    Raises:
        WeightsError: no table for the network, a file that cannot be read, nothing matched, a shape that does not fit,
            or with `strict` something missing.
    """
    import keras

    from planar3d.graph.keras_graph import layers_within

    table = torch_names(names or _name_in_2d(network))
    normalizations = layers_within(network, keras.layers.Normalization)
    own = {"mean": np.asarray(mean, np.float32), "variance": np.square(std, dtype=np.float32), "count": np.zeros(())}
    constants = {f"{layer.name}/{name}": array for layer in normalizations for name, array in own.items()}
    return fill_from(
        file, lambda state: transplant(network, keras_arrays(state, table, layout) | constants, strict=strict)
    )


def _name_in_2d(network: "keras.Model") -> str:
    """The name of the network that a converted one was made of, also where it was read from a file; else its own."""
    report = getattr(network, "transfer_report", None)
    return report.source if report else network.name.removesuffix("_features").removesuffix("_3d")
