"""The untrusted metadata of a weights file, validated."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from planar3d.errors import RecipeError, WeightsError
from planar3d.recipes import Recipe
from planar3d.sections import UnknownFieldError, UnknownVariantError
from planar3d.transfer.metadata import CARD, RECIPE, mapping_in, plain_text


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


def recipe_in(metadata: Mapping[str, Any], path: Path) -> Recipe | None:
    """The recipe in a file, if any."""
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
