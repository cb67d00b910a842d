"""The `.h5` layout of Keras 2, used by the original release and by Keras 3 as its legacy format.

There is one group per layer, listed in the attribute `layer_names`; in each, `weight_names` lists its data sets in
order. A whole model has the same under `model_weights`.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from planar3d.files import written_beside
from planar3d.transfer.guards import NUMBERS, items_in, read_array, texts
from planar3d.transfer.weight_places import AUTOMATIC, short_names

if TYPE_CHECKING:
    import keras

# Names of variables end in the weight's name and a number added by TensorFlow; Keras 1 wrote `W` and `b`, as in
# `block1_conv1_W_1:0`, which is still in the standard VGG-16 file.
_SUFFIX = re.compile(
    r"(?:^|_)(kernel|bias|gamma|beta|moving_mean|moving_variance|depthwise_kernel|pointwise_kernel|recurrent_kernel|W|b)"
    r"(?:_\d+)?$"
)
_KERAS1 = {"W": "kernel", "b": "bias"}


def read_legacy(group: h5py.Group) -> dict[str, np.ndarray]:
    """Read all weights of a group in this layout, by `layer/weight`.

    The group's name is the layer's, whatever suffix TensorFlow added to its variables. Arrays that no layer lists, such
    as those of the network itself, keep their own names.
    """
    found: dict[str, np.ndarray] = {}
    sets = {name: item for name, item in items_in(group) if isinstance(item, h5py.Dataset)}
    rest = {name: dataset for name, dataset in sets.items() if dataset.dtype.kind in NUMBERS}
    for layer in texts(group, "layer_names"):
        names = texts(group[layer], "weight_names")
        arrays = [read_array(group[layer][name], f"{layer}/{name}") for name in names]
        for name in names:
            rest.pop(f"{layer}/{name}", None)
        found.update(zip(_weight_paths(layer, names, [array.ndim for array in arrays]), arrays, strict=True))
    found |= {name.removesuffix(":0"): read_array(dataset, name) for name, dataset in rest.items()}
    return dict(zip(short_names(found), found.values(), strict=True))


def write_legacy_h5(path: str | Path, network: "keras.Model") -> None:
    """Write a network's weights atomically, so that Keras 2 and the original release load them by name.

    Source: the layout of Keras 2.2.4's `save_weights`.
    """
    with written_beside(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        # Keras 2 treats a file without a version as one of Keras 1 and flips its kernels.
        file.attrs["keras_version"] = np.bytes_("2.2.4")
        file.attrs["backend"] = np.bytes_("tensorflow")
        file.attrs["layer_names"] = np.array([layer.name for layer in network.layers], dtype="S")
        for layer in network.layers:
            group = file.create_group(layer.name)
            # As in Keras 2, trainable weights are first.
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            names = [f"{name}:0" for name in short_names(weight.path for weight in weights)]
            group.attrs["weight_names"] = np.array(names, dtype="S") if names else np.zeros(0, "S1")
            for name, weight in zip(names, weights, strict=True):
                group.create_dataset(name, data=np.asarray(weight))


def _weight_paths(layer: str, stored: list[str], ranks: list[int]) -> list[str]:
    """The path `layer/weight` of each weight of a group, with the inner layer's name for nested networks."""
    named = layer.replace("/", "_")  # as in Keras 3, whose layers have no slashes in their names: DenseNet's conv1/conv
    scopes = [name.rpartition("/")[0].replace(layer, named) for name in stored]
    layer = named
    paths = [""] * len(stored)
    for scope in set(scopes):
        places = [place for place, other in enumerate(scopes) if other == scope]
        inner = scope if scope.startswith(f"{layer}/") else f"{layer}/{scope}".removesuffix("/")
        # One layer's variables: the group's name counts, as TensorFlow may have numbered theirs (`block1_conv1_1`).
        path = inner if "/" in scope or len(places) < len(stored) else layer
        names = [stored[place].rpartition("/")[2].partition(":")[0] for place in places]
        for place, weight in zip(places, _weight_names(names, [ranks[place] for place in places]), strict=True):
            paths[place] = f"{path}/{weight}"
    return paths


def _weight_names(stored: list[str], ranks: list[int]) -> list[str]:
    found = [_SUFFIX.search(name) for name in stored]
    names = [_KERAS1.get(match[1], match[1]) if match else name for match, name in zip(found, stored, strict=True)]
    # Keras 3 calls a depthwise convolution's kernel "kernel"; a separable one has two and keeps their names.
    if "depthwise_kernel" in names and "pointwise_kernel" not in names:
        names = ["kernel" if name == "depthwise_kernel" else name for name in names]
    if not any(found) and ranks[1:] == [1] and ranks[0] > 1:
        return ["kernel", "bias"]
    names = names if len(set(names)) == len(names) else stored
    return [str(number) if AUTOMATIC.fullmatch(name) else name for number, name in enumerate(names)]
