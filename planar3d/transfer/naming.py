"""Names of weights: `layer/weight`, the same in files and in networks."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# Names of variables that their layer gave no name, numbered over all networks.
AUTOMATIC = re.compile(r"variable(_\d+)?", re.IGNORECASE)


def short_names(paths: Iterable[str]) -> list[str]:
    """Shorten paths of weights to `layer/weight`; those that are then ambiguous keep their whole path.

    >>> short_names(["vgg16/block1_conv1/kernel", "a/query/kernel", "b/query/kernel"])
    ['block1_conv1/kernel', 'a/query/kernel', 'b/query/kernel']
    """
    paths = list(paths)
    tails = ["/".join(path.split("/")[-2:]) for path in paths]
    seen = Counter(tails)
    return [tail if seen[tail] == 1 else path for path, tail in zip(paths, tails, strict=True)]


def path_within(layer: Any, variable: Any) -> str:
    """The name of a layer's weight, starting with the layer's name: `block1_conv1/kernel`."""
    *around, name = variable.path.split("/")
    if AUTOMATIC.fullmatch(name):
        name = next((held for held, value in vars(layer).items() if value is variable), name)
    if layer.name not in around:
        # A layer in a wrapper has its own name; a layer renamed after building has its new name.
        return f"{layer.name}/{variable.path}" if hasattr(layer, "layer") else f"{layer.name}/{name}"
    last = len(around) - 1 - around[::-1].index(layer.name)
    return "/".join([*around[last:], name])


def weight_paths(network: "keras.Model") -> list[str]:
    """The names of a network's weights, in order, with the names of nested models in front.

    Keras' own paths omit nested functional models, so two of them may have weights with the same path.
    """
    import keras

    found: dict[int, str] = {}

    def look(model: Any, prefix: str) -> None:
        for layer in model.layers:
            if isinstance(layer, keras.Model):
                look(layer, f"{prefix}{layer.name}/")
            for variable in layer.weights:
                found.setdefault(id(variable), prefix + path_within(layer, variable))

    look(network, "")
    return [found.get(id(variable), variable.path) for variable in network.weights]
