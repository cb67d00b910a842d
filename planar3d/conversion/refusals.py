"""Why a layer without a rule of conversion is refused, and what its user can do."""

from typing import Any

from keras import layers

from planar3d.conversion.place import Place


def refusal(operation: Any, place: Place) -> str:
    """The reason and the advice, to follow the layer's name and type."""
    kind = type(operation).__name__
    if not isinstance(operation, layers.Layer):
        return (
            "no rule is known. Replace it with layers or other keras.ops: Resizing and UpSampling2D resize, "
            "ZeroPadding2D pads, MaxPooling2D pools"
        )
    given = next((name for name, each in vars(layers).items() if each is type(operation)), None)
    name = f"keras.layers.{given}" if given else kind
    instead = f"counterparts={{{name}: lambda layer: "
    if kind == "Lambda":
        return (
            "its function is code that may treat a volume differently. If it treats each value alone, convert with "
            f"{instead}keras.layers.Lambda(layer.function, name=layer.name)}}; else replace it with layers or keras.ops"
        )
    if kind == "SpectralNormalization":
        return (
            "it only changes the kernel of another layer, in training. Convert the network with that layer: "
            "keras.models.clone_model(network, clone_function=lambda layer: layer.layer if isinstance(layer, "
            f"{name}) else layer)"
        )
    if given and kind.startswith(("AugMix", "CutMix", "MixUp", "Rand")) and kind != "RandomCrop":
        return (
            "it changes images at random in training, each slice differently. Leave it out with "
            f"{instead}keras.layers.Identity(name=layer.name)}}, and augment volumes before they enter the network"
        )
    if len(place.inputs) > 1:
        return (
            "it combines several inputs, and no rule is known. Replace it with keras.layers.MultiHeadAttention, other "
            f"layers or keras.ops, or give its 3D layer, which has the same weights: {instead}…}}"
        )
    passes_state = isinstance(operation, (layers.RNN, layers.Bidirectional))
    return (
        f"{'its steps are not the slices of a volume' if passes_state else 'no rule is known'}. To apply it to each "
        f"slice, convert with axis=0 and {instead}keras.layers.TimeDistributed({name}.from_config(layer.get_config()), "
        "name=layer.name)}; any 3D layer with the same weights is accepted"
    )
