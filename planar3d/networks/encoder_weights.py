"""The three sources of an encoder's weights: ImageNet, a file, or none at all."""

import functools
import os

import keras

from planar3d.networks.architecture import WeightSource
from planar3d.transfer.arrays import read_arrays
from planar3d.transfer.sources import identify, imagenet_vgg16
from planar3d.transfer.transplant import Report, transplant

EncoderWeights = str | os.PathLike[str] | None
# Found once a process: a cross-validation builds a network a round, and a failing download takes its time.
find_imagenet = functools.cache(imagenet_vgg16)


def fill_encoder(network: keras.Model, weights: EncoderWeights, mapping: str = "planar") -> Report | None:
    """Fill the layers of `network` that `weights` knows by name; None leaves the random initialization.

    Args:
        network: any network with layers named as in VGG-16.
        weights: `"imagenet"`, None, or a file of 2D kernels (mapped by Kolarik 2020, eq. 3) or of planar kernels
            (loaded as they are), told apart by their rank.
        mapping: how 2D kernels fill kernels deeper than one slice, as in `map_kernel`.

    Returns:
        The report of what matched, or None for random weights.

    Raises:
        WeightsError: no source of ImageNet weights was found, or the file cannot be used.
    """
    if weights is None:
        return None
    if weights == "imagenet":
        return transplant(network, find_imagenet().arrays, mapping=mapping)
    return transplant(network, read_arrays(weights), mapping=mapping)


def _vgg16_origin(weights: str) -> str:
    if weights == "imagenet":
        return f"ImageNet VGG-16, {find_imagenet().origin}"
    return f"{identify(read_arrays(weights))}, {weights}"


VGG16_SOURCE = WeightSource(
    "VGG-16, Simonyan and Zisserman 2015, Visual Geometry Group, University of Oxford; ImageNet weights as distributed "
    "with Keras (CC BY 4.0)",
    _vgg16_origin,
)
