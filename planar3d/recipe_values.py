"""Values of a recipe's fields, checked and brought to their types."""

import typing
from typing import Any, Literal

from planar3d.errors import RecipeError


def field_value(name: str, kind: Any, value: Any) -> Any:
    """Bring a value, perhaps given as text, to its field's type.

    Args:
        name: of the field, for the sentence.
        kind: int, float, str, a Literal of choices, or a tuple of one of these.
        value: as a recipe, a JSON file or `--set` gives it.

    Raises:
        RecipeError: a value that is not of the type, or not among the choices.
    """
    origin = typing.get_origin(kind)
    if origin is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise RecipeError(f"{name}={value!r} is unknown; choose one of: {', '.join(map(repr, choices))}.")
        return value
    if origin is tuple:
        if not isinstance(value, str | list | tuple):
            raise RecipeError(f"{name}={value!r}: a list of values is needed.")
        items = value.split(",") if isinstance(value, str) else list(value)
        items = [item.strip() if isinstance(item, str) else item for item in items]
        return tuple(field_value(name, typing.get_args(kind)[0], item) for item in items if item != "")
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or (kind is int and number != float(value)) or (kind is float and number != number):
        raise RecipeError(f"{name}={value!r}: a value of type {kind.__name__} is needed.")
    return number
