"""The three sources of an encoder's weights: ImageNet, a file, or none."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from planar3d.conversion.channels import fitted
from planar3d.conversion.choices import PLANAR, KernelMapping
from planar3d.errors import WeightsError
from planar3d.networks.architecture import WeightSource
from planar3d.transfer.arrays import read_arrays
from planar3d.transfer.digests import identify
from planar3d.transfer.download import cache_folder
from planar3d.transfer.known_files import fetch_known
from planar3d.transfer.published_models import find_model
from planar3d.transfer.sources import imagenet_vgg16, instead_of_download
from planar3d.transfer.torch_weights import load_torch
from planar3d.transfer.transplant import Report, load_weights, transplant

EncoderWeights = str | os.PathLike[str] | None
_FIRST = "block1_conv1/kernel"
# Once per process: a cross-validation builds a network per fold, and a failing download takes time.
find_imagenet = functools.cache(imagenet_vgg16)


def fill_encoder(network: keras.Model, weights: EncoderWeights, mapping: KernelMapping = PLANAR) -> Report | None:
    """Load the weights of layers in `network` by name; None keeps the random initialization.

    Args:
        network: any network with layers named as in VGG-16.
        weights: `"imagenet"`, None, or a file of 2D kernels (mapped by Kolarik 2020, eq. 3) or of planar kernels
            (loaded unchanged), distinguished by their rank. The first kernel is adapted to the network's input
            channels, see `channels.fitted`.
        mapping: of 2D kernels to kernels deeper than one slice.
    """
    if weights is None:
        return None
    arrays = find_imagenet()[0] if weights == "imagenet" else read_arrays(weights)
    kernel, channels = arrays.get(_FIRST), network.input_shape[-1]
    if kernel is not None and kernel.ndim >= 4 and kernel.shape[-2] != channels:
        arrays = arrays | {_FIRST: fitted(kernel, channels)}
    return transplant(network, arrays, mapping=mapping.name, tap=mapping.tap, alpha=mapping.alpha)


def _vgg16_origin(weights: str) -> str:
    if weights == "imagenet":
        return f"ImageNet VGG-16, {find_imagenet()[1]}"
    return f"{identify(read_arrays(weights))}, {weights}"


VGG16_SOURCE = WeightSource(
    "VGG-16, Simonyan and Zisserman 2015, Visual Geometry Group, University of Oxford; ImageNet weights as distributed "
    "with Keras (CC BY 4.0)",
    _vgg16_origin,
)


def known_source(attribution: str, imagenet: str) -> WeightSource:
    """The source of an encoder whose ImageNet weights are in the table of known files."""

    def origin(weights: str) -> str:
        if weights == "imagenet":
            return f"{attribution}, {_imagenet_file(imagenet).name}"
        if not Path(weights).is_file():
            raise WeightsError(f"{weights} does not exist; name a file of the encoder's 2D weights.")
        return f"the user's own, {weights}"

    return WeightSource(attribution, origin)


def _imagenet_file(name: str) -> Path:
    try:
        return fetch_known(name)
    except WeightsError as error:
        ways = f"copy {name} into {cache_folder()}", "name a file of the encoder's weights instead of 'imagenet'"
        raise WeightsError(f"{error} {instead_of_download(*ways)}") from error


def fill_flat(flat: keras.Model, weights: EncoderWeights, imagenet: str) -> None:
    """Load weights into a 2D network, from a file with the layer names of Keras, or of torch with either order of axes.

    Args:
        weights: `"imagenet"`, a file, or None for random weights.
        imagenet: its file of ImageNet weights in the table of known files.

    Raises:
        WeightsError: the weights cannot be found, or fit in none of these ways, with the reason for each.
    """
    if weights is None:
        return
    file = _imagenet_file(imagenet) if weights == "imagenet" else find_model(weights)
    reasons = []
    ways: dict[str, Callable[[], Any]] = {
        "Keras' names": lambda: transplant(flat, read_arrays(file), strict=True),
        "torch's names": lambda: load_torch(flat, file),
        "torch's names and Keras' axes": lambda: load_torch(flat, file, layout="keras"),
    }
    for way, fill in ways.items():
        try:
            fill()
            return
        except WeightsError as error:
            reasons.append(f"with {way}: {error}")
    raise WeightsError(f"{file} does not fit {flat.name}; {' '.join(reasons)}")


def with_weights(network: keras.Model, weights: EncoderWeights) -> keras.Model:
    """The whole network, with the weights of a file or published model if given."""
    if weights is not None:
        load_weights(network, weights, strict=True)
    return network
