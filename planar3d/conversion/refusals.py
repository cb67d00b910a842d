"""Why a layer without a rule of conversion is refused, and what its user can do."""

import re
from typing import Any

from keras import layers

from planar3d.conversion.place import Place

# Reasons and advice; `{layer}` is the layer's class in Python, and `{instead}` begins a dictionary of its counterpart.
_OPERATION = (
    "no rule is known",
    "Replace it with layers or other keras.ops: Resizing and UpSampling2D resize, ZeroPadding2D pads, MaxPooling2D "
    "pools, arithmetic broadcasts. Or put it into a layer of your own, which counterparts can apply to each slice",
)
_RANDOM = (
    "it changes images at random in training, each slice differently",
    "Leave it out with {instead}keras.layers.Identity(name=layer.name)}}, and augment volumes before they enter the "
    "network",
)
_LAYERS = {
    **{
        name: _RANDOM
        for name in vars(layers)
        if name.startswith(("AugMix", "CutMix", "MixUp", "Rand")) and name != "RandomCrop"
    },
    "Lambda": (
        "its function is code that may treat a volume differently",
        "If it treats each value alone, convert with {instead}keras.layers.Lambda(layer.function, name=layer.name)}}; "
        "else replace it with layers or keras.ops",
    ),
    "SpectralNormalization": (
        "it only changes the kernel of another layer, in training",
        "Convert the network with that layer: keras.models.clone_model(network, clone_function=lambda layer: "
        "layer.layer if isinstance(layer, {layer}) else layer)",
    ),
}
_SEVERAL_INPUTS = (
    "it combines several inputs, and no rule is known",
    "Replace it with keras.layers.MultiHeadAttention, other layers or keras.ops, or give its 3D layer, which has the "
    "same weights: {instead}…}}",
)
_BY_SLICE = (
    "To apply it to each slice, convert with axis=0 and {instead}keras.layers.TimeDistributed({layer}.from_config("
    "layer.get_config()), name=layer.name)}}; any 3D layer with the same weights is accepted"
)


def refusal(operation: Any, place: Place) -> str:
    """The reason and the advice, to follow the layer's name and type."""
    public = next((name for name, each in vars(layers).items() if each is type(operation)), "")
    if not isinstance(operation, layers.Layer):
        why, advice = _OPERATION
    elif public in _LAYERS:
        why, advice = _LAYERS[public]
    elif len(place.inputs) > 1:
        why, advice = _SEVERAL_INPUTS
    else:
        in_steps = isinstance(operation, layers.RNN | layers.Bidirectional)
        why, advice = "its steps are not the slices of a volume" if in_steps else "no rule is known", _BY_SLICE
    layer = f"keras.layers.{public}" if public else type(operation).__name__
    return f"{why}. {advice}".format(layer=layer, instead=f"counterparts={{{layer}: lambda layer: ")


def reason(error: Exception) -> str:
    """The essential line of an error; Keras puts the location before it and adds colours."""
    lines = [re.sub(r"\x1b\[\d*m", "", line).strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("Exception encountered")]
    return told[0].rstrip(".") if told else type(error).__name__
