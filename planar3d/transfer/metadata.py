"""The metadata of a weights file as JSON: recipe, network, card, and Keras' configuration."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from planar3d.disk import require_room
from planar3d.errors import RecipeError, WeightsError
from planar3d.sections import UnknownFieldError, UnknownVariantError
from planar3d.transfer.guards import opened, texts

if TYPE_CHECKING:
    from planar3d.recipes import Recipe

RECIPE, NETWORK, CARD = "planar3d_recipe", "planar3d_network", "planar3d_card"
DESCRIBED = "description_sha256"  # in the card: ties a description to the file
_DESCRIPTION = "planar3d_description"  # a data set, which may be larger than an attribute
_LARGEST_DESCRIPTION = 2**22  # bytes
# Keras stores the bytecode of a Python function under these classes.
_CODE = ("Lambda", "__lambda__")
# An attribute of an HDF5 file is limited to 64 KiB.
_LARGEST = 60_000


def read_metadata(path: Path) -> dict[str, Any]:
    """The recipe, the network and the model card in a weights file, as far as present, by attribute name.

    Raises:
        WeightsError: an attribute is not a JSON object.
    """
    if not h5py.is_hdf5(path):
        return {}
    try:
        with h5py.File(path, "r", locking=False) as file:
            return metadata_of(file, path)
    except OSError as error:
        raise WeightsError(f"{path} is damaged: it cannot be read as HDF5 ({error}).") from None


def metadata_of(file: h5py.File, path: Path) -> dict[str, Any]:
    """The metadata of an open file; `path` names it in errors."""
    try:
        found = {name: json.loads("".join(texts(file, name))) for name in (RECIPE, NETWORK, CARD) if name in file.attrs}
        if others := [name for name, value in found.items() if not isinstance(value, dict)]:
            raise ValueError(f"{others[0]} is not a JSON object")
        return found
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} is damaged: its metadata cannot be read ({error}).") from None


def read_description(path: Path, sha256: str | None = None) -> Any:
    """The description of the network in a weights file, as JSON values; None without one.

    Args:
        sha256: expected digest of the description, which is ignored otherwise; None accepts any.
    """
    if not h5py.is_hdf5(path):
        return None
    with opened(path) as file:
        found = file.get(_DESCRIPTION)
        try:
            if found is None:
                return None
            if found.dtype != np.uint8 or found.size > _LARGEST_DESCRIPTION:
                raise ValueError(
                    f"it has {found.size:,} values of {found.dtype}; the limit is {_LARGEST_DESCRIPTION:,} bytes"
                )
            text = np.asarray(found[()], np.uint8).tobytes()
            return json.loads(text) if sha256 in (None, hashlib.sha256(text).hexdigest()) else None
        except (AttributeError, TypeError, ValueError, OSError, RecursionError) as error:
            raise WeightsError(f"{path} is damaged: the description of its network cannot be read ({error}).") from None


def read_configuration(text: str | bytes, path: Path) -> Any:
    """Read a network's configuration as JSON; it is never built, and code is refused, as weights do not need it.

    Raises:
        WeightsError: it contains a Lambda layer or another Python function.
    """

    def refuse_code(value: dict[str, Any]) -> dict[str, Any]:
        if value.get("class_name") in _CODE:
            raise WeightsError(
                f"{path} contains Python code ({value['class_name']}), which would run when Keras builds the network. "
                "Do not use this file, or ask for its weights only, saved with save_weights."
            )
        return value

    return json.loads(text, object_hook=refuse_code)


def write_metadata(path: Path, content: dict[str, Any], description: Any = None) -> None:
    """Write objects as JSON to attributes of a weights file, and the description of its network.

    The card, if any, gets the description's digest.
    """
    described = b"" if description is None else json.dumps(description).encode()
    if described and CARD in content:
        content = content | {CARD: content[CARD] | {DESCRIBED: hashlib.sha256(described).hexdigest()}}
    texts_of = {name: json.dumps(value, ensure_ascii=False) for name, value in content.items()}
    for name, text in texts_of.items():
        if len(text.encode()) > _LARGEST:
            raise WeightsError(
                f"The {name} of {path.name} has {len(text.encode()):,} bytes; the limit is {_LARGEST:,}."
            )
    require_room(path, len(described))
    with h5py.File(path, "a", locking=False) as file:
        file.attrs.update(texts_of)
        if described:
            file.create_dataset(_DESCRIPTION, data=np.frombuffer(described, np.uint8))


def plain_text(value: Any) -> str:
    """A value of an untrusted file as text, without characters that control a terminal."""
    return "".join(filter(str.isprintable, str(value)))


def mapping_in(value: Any) -> Mapping[str, Any]:
    """A value of an untrusted file if it is a mapping; else an empty one."""
    return value if isinstance(value, Mapping) else {}


def recipe_in(metadata: Mapping[str, Any], path: Path) -> "Recipe | None":
    """The recipe in a file, if any."""
    # Slow to import, and the trial of a weights file reads no recipe.
    from planar3d.recipes import Recipe

    if RECIPE not in metadata:
        return None
    try:
        return Recipe.from_json(metadata[RECIPE], source=str(path))
    except UnknownFieldError as error:
        written = plain_text(mapping_in(metadata.get(CARD, {}).get("versions")).get("planar3d", "another version"))
        raise WeightsError(
            f"{path} was written by planar3d {written}: its recipe has "
            f"{', '.join(map(plain_text, error.unknown[:5]))}, unknown to this version. Update with pip install -U "
            "planar3d, or name a recipe with --recipe."
        ) from None
    except UnknownVariantError as error:
        raise WeightsError(plain_text(error)) from None
    except (RecipeError, TypeError, OverflowError) as error:
        raise WeightsError(
            f"{path} is damaged: its recipe cannot be read ({plain_text(error)}). Get it again from its source, "
            "or name a recipe with --recipe."
        ) from None


def measures_in(card: Mapping[str, Any]) -> dict[str, Any]:
    """The valid entries of a card about its model's evaluation."""
    said = mapping_in(card.get("measured"))
    return {name: said[name] for name, is_sound in _MEASURED.items() if name in said and is_sound(said[name])}


def greatest_in(card: Mapping[str, Any]) -> dict[str, float]:
    """The greatest values of layers' outputs in int8, by layer; empty unless all are valid: they are divided by."""
    said = mapping_in(mapping_in(card.get("int8")).get("greatest"))
    return {name: float(value) for name, value in said.items()} if all(_is_size(v) and v for v in said.values()) else {}


def _is_size(value: Any) -> bool:
    """Whether a value is a finite number from 0 on."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


_MEASURED: dict[str, Callable[[Any], bool]] = {
    "false_alarms_ml": _is_size,
    "spacing_mm": lambda said: (
        isinstance(said, list) and len(said) == 2 and all(map(_is_size, said)) and 0 < said[0] <= said[1]
    ),
    "extracted": lambda said: isinstance(said, list) and all(isinstance(each, bool) for each in said),
}
