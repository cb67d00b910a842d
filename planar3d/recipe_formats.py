"""What a recipe in a file means: the format it was written in, and the values of fields that the file does not hold.

Weights files and run folders must keep their meaning when named recipes improve and fields are added, so what they
leave out never comes from today's recipe of that name.
"""

from collections.abc import Mapping
from typing import Any

from planar3d.errors import RecipeError

FORMAT = 1  # that recipes are written in; files from before formats were numbered are of format 1 as well

# What a file of format 1 means where it lacks a field: what was done before there was that field.
_FORMAT_1: dict[str, Any] = {
    "grid": "cube",
    "size": 256,
    "pixel_mm": 0.9,
    "slice_mm": 6.5,
    "spline_order": 2,
    "grey_levels": "min-max",
    "raw_values": "float32",
    "resampling": "scipy",
    "depth": 16,
    "stride": 8,
    "window_borders": "scan",
    "channels": 3,
    "network": "planar-resunet",
    "encoder": "vgg16",
    "encoder_weights": "imagenet",
    "encoder_range": "unit",
    "encoder_depth": 1,
    "decoder_filters": (256, 128, 64, 32),
    "bridge_filters": 512,
    "frozen": ("encoder",),
    "output_prior": 0.5,
    "unit_variance": (),
    "learning_rate": 5e-5,
    "schedule": "decay",
    "decay": 1.99e-7,
    "warmup_steps": 0,
    "clip_norm": 0.0,
    "epsilon": 1e-7,
    "dice_smoothing": 0.0,
    "batch_size": 2,
    "epochs": 100,
    "patience": 40,
    "monitor": "val_loss",
    "validation": "last scan",
    "sampling": "windows",
    "crop": 128,
    "crops_per_epoch": 100,
    "lesion_share": 0.6,
    "augmentation": (),
    "shuffle": "once",
    "cached_features": "none",
    "precision": "float32",
    "seed": 0,
    "threshold": 16.0,
    "threshold_rule": "absolute",
    "smallest_lesion_mm3": 0.0,
}
DEFAULTS: dict[int, Mapping[str, Any]] = {1: _FORMAT_1}


def check_is_recipe(content: Any, source: str) -> None:
    """Raise a `RecipeError` that names the source unless JSON values can be a recipe."""
    if not isinstance(content, dict) or "name" not in content:
        raise RecipeError(f"{source} is not a recipe: a JSON object with at least 'name' is needed.")


def written_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a recipe that this package wrote, those that it lacks with the values of its format.

    Args:
        content: JSON values, with `format` unless they are older than formats.

    Raises:
        RecipeError: a format that this version does not know.
    """
    number = content.get("format", 1)
    if not isinstance(number, int) or number not in DEFAULTS:
        raise RecipeError(
            f"the recipe is of format {number!r}, and this version reads {', '.join(map(str, DEFAULTS))}. Update with "
            "pip install -U planar3d."
        )
    return {**DEFAULTS[number], **{name: value for name, value in content.items() if name != "format"}}
