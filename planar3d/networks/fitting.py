"""Whether arrays are those of a network, and in the user's words if not."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from planar3d.errors import WeightsError
from planar3d.networks.architecture import layers_with_weights
from planar3d.networks.registry import describe_network, find_architecture
from planar3d.recipes import Recipe
from planar3d.transfer.digests import RECOGNIZED
from planar3d.wording import counted

_SHOWN = 5
_MOST_LEVELS = 32  # numbers in a list of sizes


def refuse_other_sizes(
    arrays: Mapping[str, np.ndarray], recipe: Recipe, path: Path, said: Mapping[str, Any] | None = None
) -> None:
    """Raise a `WeightsError` where a recipe asks for another network or other sizes than a file has.

    To be called before the network is built: what a recipe from elsewhere asks for may need more memory than there is.

    Args:
        arrays: by `layer/weight`.
        said: what the file says of its network, as `describe_network` gives it; None if it says nothing.
    """
    asked, architecture = describe_network(recipe), find_architecture(recipe.network.name)
    if said is None:
        found = architecture.told(arrays)
    else:
        found = {"network": said.get("network"), **_mapping(said.get("arguments"))}
        if found["network"] == recipe.network.name:
            # What a file does not say yet was a constant of its network; the default of the setting keeps it.
            found = {**architecture.arguments(type(recipe.network)(), recipe.targets), **found}
    wanted = {"network": recipe.network.name, "channels": recipe.preparation.channels, **asked["arguments"]}
    for field, value in wanted.items():
        if field in found and _text(found[field]) != _text(value):
            raise WeightsError(
                f"{path} was trained with {field}={_text(found[field])}, and the recipe {recipe.name} asks for "
                f"{_text(value)}. Leave the recipe to the file, or name the one it was trained by (--recipe, or --set "
                f"{field}={_text(found[field])})."
            )
    largest = max((max(array.shape, default=0) for array in arrays.values()), default=0)
    for field, value in asked["arguments"].items():
        numbers = [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int)]
        if max(numbers, default=0) > largest or len(numbers) > _MOST_LEVELS:
            raise WeightsError(
                f"{path} holds another network: none of its arrays is as large as {field}={_text(value)}, which the "
                f"recipe {recipe.name} asks for. Leave the recipe to the file, or name a file that planar3d trained."
            )


def refuse_misfit(network: keras.Model, arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Raise a `WeightsError` that says whose arrays they are, if their layers are not the network's."""
    wanted, layers = set(layers_with_weights(network)), {name.rpartition("/")[0] for name in arrays}
    if layers != wanted:
        raise WeightsError(f"{path} {_what_it_is(network, wanted, layers, arrays)}")


def _what_it_is(network: keras.Model, wanted: set[str], layers: set[str], arrays: Mapping[str, np.ndarray]) -> str:
    if any(layers <= known.kernel_shapes.keys() for known in RECOGNIZED):
        return (
            f"holds an encoder alone ({_listed(layers)}); a trained {network.name} with its decoder is needed. Train "
            "one that begins with it (--set encoder_weights=FILE), or name another file."
        )
    dense = [name for name, array in arrays.items() if name.endswith("/kernel") and array.ndim == 2]
    if dense:
        return (
            f"holds a classification network (with the dense layers {_listed(n.rpartition('/')[0] for n in dense)}); a "
            f"trained {network.name} is needed. Its convolutions may begin one (--set encoder_weights=FILE)."
        )
    return (
        f"holds another network: {network.name} needs {counted(wanted, 'layer')}, and of those it lacks "
        f"{_listed(wanted - layers)}; it has others: {_listed(layers - wanted)}. Name a file that planar3d trained."
    )


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    return (", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" * (len(found) > _SHOWN))) or "none"


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
