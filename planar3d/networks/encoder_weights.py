"""The three sources of an encoder's weights: ImageNet, a file, or none."""

import functools
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from planar3d.conversion.channels import fitted
from planar3d.conversion.choices import PLANAR, KernelMapping
from planar3d.errors import WeightsError
from planar3d.networks.architecture import WeightSource, card_in
from planar3d.scans.windows import INPUT_SCALE
from planar3d.transfer import published_models
from planar3d.transfer.array_files import Arrays
from planar3d.transfer.digests import identify
from planar3d.transfer.download import cache_folder
from planar3d.transfer.known_files import fetch_known
from planar3d.transfer.metadata import RECIPE, read_metadata
from planar3d.transfer.rehearsal import read_arrays
from planar3d.transfer.sources import imagenet_vgg16, instead_of_download
from planar3d.transfer.torch_names import Names, stage_of, stages_of, torch_names
from planar3d.transfer.torch_weights import IMAGENET_STD, keras_arrays, prefix_of
from planar3d.transfer.transplant import Report, load_weights, transplant
from planar3d.wording import counted, listed

EncoderWeights = str | os.PathLike[str] | None
_FIRST = "block1_conv1/kernel"
# Once per process: a cross-validation builds a network per fold, and a failing download takes time.
find_imagenet = functools.cache(imagenet_vgg16)


def fill_encoder(network: keras.Model, weights: EncoderWeights, mapping: KernelMapping = PLANAR) -> Report | None:
    """Load the weights of layers in `network` by name; None keeps the random initialization.

    Args:
        network: any network with layers named as in VGG-16.
        weights: `"imagenet"`, None, or a file of 2D kernels (mapped by Kolarik 2020, eq. 3) or of planar kernels
            (loaded unchanged), distinguished by their rank, under names of Keras or torch. The first kernel is adapted
            to the network's input channels, see `channels.fitted`.
        mapping: of 2D kernels to kernels deeper than one slice.

    Raises:
        WeightsError: the weights cannot be found, or do not cover all VGG-16 layers of the network.
    """
    if weights is None:
        return None
    arrays = find_imagenet()[0] if weights == "imagenet" else read_arrays(_file_of(weights))
    return _fill(network, arrays, weights, "vgg16", mapping)


def input_scale(weights: EncoderWeights) -> float:
    """How many times larger the inputs expected by weights of VGG-16 are than prepared grey levels, in [-1, 1).

    Keras' weights expect grey levels minus their mean; torch's weights expect the same, divided by a standard
    deviation; the weights of a network trained by planar3d expect prepared scans.
    """
    if weights is None or weights == "imagenet":
        return INPUT_SCALE
    file, names = _file_of(weights), torch_names("vgg16")
    if RECIPE in read_metadata(file):
        return 1
    arrays = read_arrays(file)
    prefix = prefix_of(arrays, names)
    is_torch = any(f"{prefix}{name}.weight" in arrays for name in names)
    return INPUT_SCALE / (255 * float(np.mean(IMAGENET_STD))) if is_torch else INPUT_SCALE


def _fill(network: keras.Model, arrays: Arrays, weights: Any, encoder: str, mapping: KernelMapping = PLANAR) -> Report:
    """Load an encoder's weights, under Keras' names, or torch's with either order of axes; `weights` is for errors."""
    names, channels = torch_names(encoder), network.input_shape[-1]
    prefix = prefix_of(arrays, names)
    arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    reasons = []
    for layout in ("torch", "keras"):  # of arrays under torch's names; others stay as they are
        try:
            found = keras_arrays(arrays, names, layout)
            kernel = found.get(_FIRST)
            if kernel is not None and kernel.ndim >= 4 and kernel.shape[-2] != channels:
                found = found | {_FIRST: fitted(kernel, channels)}
            report = transplant(network, found, mapping=mapping.name, tap=mapping.tap, alpha=mapping.alpha)
            _check_whole(report, names, encoder)
            return report
        except WeightsError as error:
            reasons.append(str(error))
    raise WeightsError(f"{weights} does not fit the encoder {encoder}: {reasons[0]}")


def _check_whole(report: Report, names: Names, encoder: str) -> None:
    """Refuse a file of another network: a layer of the encoder is missing in it, or it has more of the encoder's kind.

    A ResNet-34's file has all weights of a ResNet-18, and VGG-19's all of VGG-16.
    """
    layers = set(names.values())
    stages = stages_of(names)
    # `acs_soft` weighs its planes by trainable weights, which start equal.
    missing = [each for each in report.missing if _layer(each.name) in layers and not each.name.endswith("/planes")]
    # Normalization of each image by itself leaves batch normalization's averages unused.
    biased = {f"{_layer(weight.name)}/bias" for weight in report.matched}
    others = [
        each
        for each in report.unused
        if each.name in biased or (_layer(each.name) not in layers and stage_of(each.name) in stages)
    ]
    if missing:
        raise WeightsError(
            f"it lacks {counted(missing, 'weight')}: {listed(missing)}. Choose weights of the whole encoder."
        )
    if others:
        raise WeightsError(
            f"it is of another network, with {counted(others, 'weight')} that {encoder} does not have: "
            f"{listed(others)}. Choose weights of {encoder}."
        )


def _layer(weight: str) -> str:
    return weight.rpartition("/")[0]


def _vgg16_origin(weights: str) -> str:
    if weights == "imagenet":
        return f"ImageNet VGG-16, {find_imagenet()[1]}"
    return _own(weights, identify(read_arrays(_file_of(weights))))


def _own(weights: str, identity: str = "the user's own") -> str:
    """A description of a file: of which trained network it is, else what its arrays are."""
    name = card_in(_file_of(weights)).get("name")
    return f"the encoder of {name}, {weights}" if name else f"{identity}, {weights}"


VGG16_SOURCE: WeightSource = WeightSource(
    "VGG-16, Simonyan and Zisserman 2015, Visual Geometry Group, University of Oxford; ImageNet weights as distributed "
    "with Keras (CC BY 4.0)",
    _vgg16_origin,
)


def known_source(attribution: str, imagenet: str) -> WeightSource:
    """The source of an encoder whose ImageNet weights are in the table of known files."""

    def origin(weights: str) -> str:
        if weights == "imagenet":
            return f"{attribution}, {_imagenet_file(imagenet).name}"
        return _own(weights)

    return WeightSource(attribution, origin)


def _file_of(weights: str | os.PathLike[str]) -> Path:
    """The file of weights that are not `"imagenet"`, which an error names as the choice besides files."""
    named = os.fspath(weights) if isinstance(weights, str | os.PathLike) else ""
    if not Path(named).exists() and named not in published_models.published_models():
        raise WeightsError(f"{weights} does not exist; name a file of the encoder's weights, or 'imagenet'.")
    return published_models.find_model(weights)


def _imagenet_file(name: str) -> Path:
    try:
        return fetch_known(name)
    except WeightsError as error:
        ways = f"copy {name} into {cache_folder()}", "name a file of the encoder's weights instead of 'imagenet'"
        raise WeightsError(f"{error} {instead_of_download(*ways)}") from error


def fill_flat(flat: keras.Model, weights: EncoderWeights, imagenet: str) -> None:
    """Load weights into a 2D network, from a file, or from the known file `imagenet`; None keeps random weights.

    Raises:
        WeightsError: the weights cannot be found, do not fit, or are of another network.
    """
    if weights is None:
        return
    file = _imagenet_file(imagenet) if weights == "imagenet" else _file_of(weights)
    _fill(flat, read_arrays(file), file, flat.name)


def with_weights(network: keras.Model, weights: EncoderWeights) -> keras.Model:
    """The whole network, with the weights of a file or published model if given."""
    if weights is not None:
        load_weights(network, weights, strict=True)
    return network
