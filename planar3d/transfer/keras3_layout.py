"""The layout of Keras 3: `.weights.h5`, and `.keras`, a zip archive of one with the network's configuration.

Each layer is a group named by its class (`layers/conv2d_1/vars/0`); the layer's own name is an attribute of `vars`, in
files of Keras before 3.10 only in the configuration.
"""

import io
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from planar3d.errors import WeightsError
from planar3d.transfer.guards import SizeBudget, items_in, opened, read_array
from planar3d.transfer.metadata import read_configuration
from planar3d.transfer.weight_places import short_names

WEIGHTS_MEMBER = "model.weights.h5"
CONFIG_MEMBER = "config.json"

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv1d_transpose", "conv2d_transpose", "conv3d_transpose")
# Variables are stored by number; their names follow from the class.
_VARIABLES = {
    **dict.fromkeys((*_CONVOLUTIONS, "depthwise_conv2d", "dense"), ("kernel", "bias")),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
# Other content of a trained network's file; metrics are in those of Keras 2.
_NO_WEIGHTS = re.compile(r"(^|/)(optimizer|seed_generator)(_\d+)?(/|$)|^metrics/")


def read_variables(file: h5py.File, path: Path, names: Mapping[str, str] | None = None) -> dict[str, np.ndarray]:
    """Read all weights of a file in this layout.

    Args:
        names: layers' names by group, if the file does not have them.

    Returns:
        Arrays by `layer/weight`, or `layer/0`, `layer/1`, … for layers of other classes.

    Raises:
        WeightsError: the file has no names of layers.
    """
    # The variables of each layer, by its group; those of the network itself are in the group without a name.
    places = ((*name.rpartition("/"), item) for name, item in items_in(file))
    groups = {group: item for group, _, last, item in places if last == "vars" and isinstance(item, h5py.Group)}
    stored = {group: str(variables.attrs["name"]) for group, variables in groups.items() if "name" in variables.attrs}
    names = {**(names or {}), **stored}
    filled = {group: held for group, held in groups.items() if len(held) and not _NO_WEIGHTS.search(group)}
    if filled and not names:
        raise WeightsError(
            f"{path} was written by an older Keras 3, which did not store layer names. Load it into its network with "
            "the installed Keras and save it again, or name the .keras file."
        )
    found: dict[str, np.ndarray] = {}
    for group, variables in filled.items():
        numbered = sorted(variables, key=lambda name: (len(name), name))  # in the order of their numbers
        for name, weight in zip(numbered, _weight_names(group, numbered), strict=True):
            place = f"{_layer_path(group, names)}/{weight}".lstrip("/")
            found[place] = read_array(variables[name], f"{group}/vars/{name}")
    return dict(zip(short_names(found), found.values(), strict=True))


def read_archive(archive: zipfile.ZipFile, path: Path) -> dict[str, np.ndarray]:
    """Read all weights of a `.keras` archive in memory; its configuration is only read for names, never built."""
    names = {}
    if CONFIG_MEMBER in archive.namelist():
        names = _configured_names(read_configuration(_read_member(archive, CONFIG_MEMBER, path), path)["config"])
    content = _read_member(archive, WEIGHTS_MEMBER, path)
    with opened(path, io.BytesIO(content)) as file:
        return read_variables(file, path, names)


def _read_member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    member = archive.getinfo(name)
    SizeBudget(path).take(member.file_size, name)
    # The archive's directory may understate a size, so unpacking stops there.
    with archive.open(member) as file:
        return file.read(member.file_size)


def _configured_names(config: Mapping[str, Any], prefix: str = "layers") -> dict[str, str]:
    """Layers' names by group, numbered by class in the order of the configuration, as in Keras."""
    names: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    for layer in config.get("layers", ()):
        kind = snake_case(layer["class_name"])
        group = f"{prefix}/{kind}_{numbers[kind]}" if numbers[kind] else f"{prefix}/{kind}"
        numbers[kind] += 1
        names[group] = layer["config"]["name"]
        names.update(_configured_names(layer["config"], f"{group}/layers"))
    return names


def _layer_path(group: str, names: Mapping[str, str]) -> str:
    """The names of the layers around a group and its own, or its place in the innermost of these."""
    parts = group.split("/")
    named = [outer for end in range(len(parts)) if (outer := "/".join(parts[: end + 1])) in names]
    within = group.removeprefix(named[-1] if named else "").strip("/")
    return "/".join(filter(None, [*(names[outer] for outer in named), within]))


def _weight_names(group: str, stored: list[str]) -> list[str]:
    kind = re.sub(r"_\d+$", "", group.rpartition("/")[2])
    known = _VARIABLES.get(kind, ())
    # A convolution without bias has only its kernel; for a normalization with fewer than four, names are ambiguous.
    is_known = len(stored) == len(known) or (known and known[0] == "kernel" and len(stored) == 1)
    return list(known[: len(stored)]) if is_known and stored[0] == "0" else stored


def snake_case(name: str) -> str:
    """The name that Keras gives to layers of a class."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
