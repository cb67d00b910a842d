"""Whether arrays are those of a recipe's planar res-u-net, told before it is built, and in the user's words if not."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from planar3d.errors import WeightsError
from planar3d.networks.vgg16 import encoder_layer_names
from planar3d.recipes import Recipe

_LEVELS = (6, 7, 8, 9)
_DECODER = (*(name for n in _LEVELS for name in (f"trans{n}", f"conv{n}1", f"conv{n}2")), "conv10")
LAYERS = frozenset((*encoder_layer_names(4), "conv51", "conv52", *_DECODER))
_SHOWN = 5


def refuse_misfit(arrays: Mapping[str, np.ndarray], recipe: Recipe, path: Path) -> None:
    """Raise a `WeightsError` that says whose arrays they are, or which size of the recipe is not theirs.

    Args:
        arrays: by `layer/weight`.
        recipe: what they are to be used by.
        path: the file that errors name.
    """
    layers = {name.rpartition("/")[0] for name in arrays}
    if layers != LAYERS:
        raise WeightsError(f"{path} {_what_it_is(layers, arrays)}")
    for field, wanted, found in _sizes(arrays, recipe):
        if wanted != found:
            raise WeightsError(
                f"{path} was trained with {field}={found}, and the recipe {recipe.name} asks for {wanted}. Leave the "
                f"recipe to the file, or name the one it was trained by (--recipe, or --set {field}={found})."
            )


def _what_it_is(layers: set[str], arrays: Mapping[str, np.ndarray]) -> str:
    if layers <= {*encoder_layer_names()}:
        return (
            f"holds an encoder alone ({_listed(layers)}); a trained network with its decoder, conv51 to conv10, is "
            "needed. Train one that begins with it (--set encoder_weights=FILE), or name another file."
        )
    dense = [name for name, array in arrays.items() if name.endswith("/kernel") and array.ndim == 2]
    if dense:
        return (
            f"holds a classification network (with the dense layers {_listed(n.rpartition('/')[0] for n in dense)}); a "
            "trained planar res-u-net is needed. Its convolutions may begin one (--set encoder_weights=FILE)."
        )
    return (
        f"holds another network: the planar res-u-net's {len(LAYERS)} layers are needed, and of those it lacks "
        f"{_listed(LAYERS - layers)}; it has others: {_listed(layers - LAYERS)}. Name a file that planar3d trained."
    )


def _sizes(arrays: Mapping[str, np.ndarray], recipe: Recipe) -> list[tuple[str, object, object]]:
    """Each of the recipe's sizes that the arrays tell: its field, its value, and theirs."""
    kernels: dict[str, tuple[int, ...]] = {}
    for name, array in arrays.items():
        layer = name.rpartition("/")[0]
        kernels[layer] = max(kernels.get(layer, ()), array.shape, key=len)
    # A kernel's axes are (depth, rows, cols, cin, cout); what has fewer is none, and fits no recipe.
    first, bridge, *decoder = (
        (0,) * (5 - len(shape)) + shape
        for shape in (kernels[layer] for layer in ("block1_conv1", "conv51", *(f"conv{n}1" for n in _LEVELS)))
    )
    return [
        ("channels", recipe.channels, first[-2]),
        # A 2D kernel fills a deeper one.
        ("encoder_depth", recipe.encoder_depth, first[0] or recipe.encoder_depth),
        ("bridge_filters", recipe.bridge_filters, bridge[-1]),
        ("decoder_filters", ",".join(map(str, recipe.decoder_filters)), ",".join(str(k[-1]) for k in decoder)),
    ]


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    return (", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" * (len(found) > _SHOWN))) or "none"
