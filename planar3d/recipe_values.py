"""Values of a recipe's fields: their ranges, and how they are brought to their types."""

import typing
from typing import Any, Literal

from planar3d.errors import RecipeError

_MULTIPLE_OF_16 = (lambda v: v >= 16 and v % 16 == 0, "the network's four poolings need a multiple of 16, at least 16")
_POSITIVE = (lambda v: v > 0, "it must be greater than 0")
_NOT_NEGATIVE = (lambda v: v >= 0, "it must not be negative")
# What a field must hold besides its type: a test of its value, and the sentence if it fails.
RANGES: dict[str, tuple[Any, str]] = {
    "size": _MULTIPLE_OF_16,
    "depth": _MULTIPLE_OF_16,
    "stride": _POSITIVE,
    "pixel_mm": _POSITIVE,
    "slice_mm": _POSITIVE,
    "channels": _POSITIVE,
    "spline_order": (lambda v: 0 <= v <= 5, "splines have an order from 0 to 5"),
    "decoder_filters": (lambda v: bool(v) and min(v) > 0, "numbers greater than 0 are needed, deepest level first"),
    "bridge_filters": _POSITIVE,
    "encoder_depth": (lambda v: v > 0 and v % 2 == 1, "an odd number of slices, at least 1, is needed"),
    "output_prior": (lambda v: 0 < v < 1, "a probability greater than 0 and less than 1 is needed"),
    "learning_rate": _POSITIVE,
    "decay": _NOT_NEGATIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "clip_norm": _NOT_NEGATIVE,
    "epsilon": _POSITIVE,
    "dice_smoothing": _NOT_NEGATIVE,
    "batch_size": _POSITIVE,
    "epochs": _POSITIVE,
    "patience": _NOT_NEGATIVE,
    "crop": _MULTIPLE_OF_16,
    "crops_per_epoch": _POSITIVE,
    "lesion_share": (lambda v: 0 <= v <= 1, "a share from 0 to 1 is needed"),
    "seed": _NOT_NEGATIVE,
    "threshold": (lambda v: 0 <= v <= 256, "a threshold from 0 to 256 is needed"),
    "smallest_lesion_mm3": _NOT_NEGATIVE,
}


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
