"""Descriptions of networks for weights files: in the file itself, or in the user's cache.

With a description, prediction works without Keras, whose import takes as long as a scan. Files of this package contain
their descriptions, with digests in their cards; descriptions of other files are stored in the user's cache by the
files' digests, once Keras has built their networks.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from planar3d import __version__
from planar3d.errors import ConversionError, WeightsError
from planar3d.graph.description import Description
from planar3d.graph.description_json import can_be_stored, from_json, to_json
from planar3d.recipes import Recipe
from planar3d.transfer.download import cached_result, keep_result
from planar3d.transfer.metadata import DESCRIBED, read_description
from planar3d.transfer.published_models import published_models
from planar3d.transfer.weight_places import places_of

if TYPE_CHECKING:
    import keras

_KEPT = "descriptions"  # kind of results in the user's cache


def describe_for(arrays: Mapping[str, np.ndarray], network: "keras.Model") -> dict[str, Any] | None:
    """Describe a network for a file with these arrays; None if the network needs Keras in any case."""
    from planar3d.graph.described import described

    found = {id(place.variable): place.found_in(arrays) for place in places_of(network)}
    try:
        description = described(network)
    except ConversionError:
        return None
    held = [found.get(id(array)) for layer in description.layers for array in layer.arrays.values()]
    if not can_be_stored(description) or None in held:
        return None
    return to_json(description, lambda array: str(found[id(array)]))


def known_description(
    path: Path, sha256: str, card: Mapping[str, Any], arrays: Mapping[str, np.ndarray], recipe: Recipe
) -> Description | None:
    """The own network of a weights file, in the sizes of a recipe for it; None without a usable description."""
    for content in _said(path, sha256, card):
        with suppress(WeightsError):  # building with Keras reports the error
            return from_json(content, arrays, recipe.window)
    return None


def asks_for_one_network(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes have the same layers, which do not depend on rows and columns."""

    def asked(recipe: Recipe) -> tuple[Any, ...]:
        depth, *_, channels = recipe.window
        return recipe.network, recipe.targets.outputs, recipe.targets.activation, depth, channels

    return asked(one) == asked(other)


def keep_description(sha256: str, arrays: Mapping[str, np.ndarray], network: "keras.Model") -> None:
    """Store the description of a file's network in the user's cache, if that is writable."""
    content = describe_for(arrays, network)
    if content is not None:
        keep_result(_KEPT, _conditions(sha256), content)


def _said(path: Path, sha256: str, card: Mapping[str, Any]) -> Iterator[Any]:
    stated, is_published = card.get(DESCRIBED), sha256 in {model.sha256 for model in published_models().values()}
    if is_published or isinstance(stated, str):
        yield read_description(path, None if is_published else stated)
    yield cached_result(_KEPT, _conditions(sha256))


def _conditions(sha256: str) -> dict[str, str]:
    return {"weights": sha256, "planar3d": __version__}
