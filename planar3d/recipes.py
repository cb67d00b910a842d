"""Recipes: every choice of an experiment in one place, by name, to and from JSON.

`PAPER` follows Kolarik 2020, `RELEASED` the authors' released code; where they differ, docs/fidelity.md says so.
`MODERN` segments better than either in the same time. `DEMO` is the reduced size at which `make reproduce` shows the
method on the embedded phantom.
"""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from planar3d.errors import RecipeError
from planar3d.recipe_formats import FORMAT, check_is_recipe, written_fields
from planar3d.recipe_values import RANGES, field_value

_HEAD_MM = 150.0
Transform = Literal["flip", "rotation", "zoom", "brightness", "contrast", "blur", "noise", "extraction"]


@dataclass(frozen=True)
class Recipe:
    """Every choice that changes a result, from preparation to threshold.

    Raises:
        RecipeError: a field holds a value that is not among its choices or out of its range.
    """

    name: str  # of the recipe

    # Preparation (Kolarik 2020, section 3.2)
    grid: Literal["cube", "slices"] = "cube"  # "cube": sagittal, size³; "slices": axial, as acquired, of pixel_mm
    size: int = 256  # voxels along each axis of the prepared cube; rows and columns of slices
    pixel_mm: float = 0.9  # of rows and columns of slices
    slice_mm: float = 6.5  # closer slices are interleaved into stacks of about this distance
    spline_order: int = 2  # of the interpolation when scans are resampled
    grey_levels: Literal["min-max", "median"] = "min-max"  # "median": that of the head becomes a fixed grey level
    raw_values: Literal["float32", "float16"] = "float32"  # the release stores raw values as float16
    resampling: Literal["matrix", "scipy"] = "matrix"  # "matrix": fast, at most a grey level from scipy's

    # Windows (section 3.2)
    depth: int = 16  # slices of a window
    stride: int = 8  # slices from one window to the next
    window_borders: Literal["scan", "none"] = "scan"  # "none": training windows cross from one scan into the next
    channels: int = 3  # the grey levels are repeated for

    # Network (section 3.4)
    network: str = "planar-resunet"  # one of `list_networks()`
    encoder: str = "vgg16"  # of the planar res-u-net, one of networks/encoders.py
    encoder_weights: str = "imagenet"  # or "none", or a file
    encoder_range: Literal["unit", "imagenet"] = "unit"  # "imagenet": inputs and weights are brought together
    encoder_depth: int = 1  # slices that an encoder's kernel spans; 1 is planar, deeper ones are averaged from 2D
    decoder_filters: tuple[int, ...] = (256, 128, 64, 32)  # of the decoder's levels, deepest first
    bridge_filters: int = 512  # of the convolutions between encoder and decoder
    frozen: tuple[str, ...] = ("encoder",)  # groups "encoder", "bridge", "decoder", or names of layers
    output_prior: float = 0.5  # probability that an untrained network gives every voxel
    unit_variance: tuple[str, ...] = ()  # groups whose random layers are scaled to outputs of variance 1, in turn

    # Training (section 3.5)
    learning_rate: float = 5e-5  # of Adam
    schedule: Literal["decay", "cosine"] = "decay"  # "cosine": falls to 0 at the last step
    decay: float = 1.99e-7  # "decay": the learning rate at a step is learning_rate / (1 + decay · step)
    warmup_steps: int = 0  # in which the learning rate rises from 0
    clip_norm: float = 0.0  # largest norm of a gradient; 0 does not clip
    epsilon: float = 1e-7  # Adam's; the default of Keras
    dice_smoothing: float = 0.0  # added to both parts of the Dice in the loss
    batch_size: int = 2  # windows, or crops, of a step
    epochs: int = 100  # at most
    patience: int = 40  # epochs without a better `monitor` before training stops; 0 never stops early
    monitor: Literal["val_loss", "val_dice", "last"] = "val_loss"  # what the kept weights are best at, or the last
    validation: Literal["last scan", "every 12th window", "none"] = "last scan"  # "none": all scans train
    sampling: Literal["windows", "crops"] = "windows"  # "crops": of random places, changed by `augmentation`
    crop: int = 128  # rows and columns of crops
    crops_per_epoch: int = 100  # however many scans there are
    lesion_share: float = 0.6  # of the crops are placed around a lesion voxel, the others anywhere in the head
    augmentation: tuple[Transform, ...] = ()  # of the crops, by training/augmentation.py and extraction.py
    shuffle: Literal["once", "every epoch"] = "once"  # when the order of the windows is drawn
    cached_features: Literal["none", "float32", "float16", "bf16"] = "none"  # of a frozen encoder, computed once a scan
    precision: Literal["float32", "bf16", "float16"] = "float32"  # that the network computes in
    seed: int = 0  # of random weights, order, crops and augmentation

    # Output (section 3.2)
    threshold: float = 16.0  # of 256
    threshold_rule: Literal["absolute", "released"] = "absolute"  # "released": relative to the highest probability
    smallest_lesion_mm3: float = 0.0  # that stays in a mask; 0 keeps all

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = field_value(field.name, _TYPES[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        for name, (holds, sentence) in RANGES.items():
            if not holds(getattr(self, name)):
                raise RecipeError(f"Recipe {self.name!r}: {name} is {getattr(self, name)!r}, but {sentence}.")
        if not (self.stride <= self.depth and (self.depth - self.stride) % 2 == 0):
            raise RecipeError(
                f"Recipe {self.name!r}: windows of depth {self.depth} at stride {self.stride} cannot be composed; the "
                "stride must be at most the depth, and depth minus stride must be even."
            )
        if self.sampling == "crops" and (self.validation != "none" or self.cached_features != "none"):
            raise RecipeError(
                f"Recipe {self.name!r}: crops are of random places, so sampling='crops' needs validation='none' and "
                f"cached_features='none'; they are {self.validation!r} and {self.cached_features!r}."
            )
        if self.grid == "slices" and self.sampling != "crops":
            raise RecipeError(
                f"Recipe {self.name!r}: with grid='slices' scans differ in their slices, so sampling='crops' is needed."
            )
        if "extraction" in self.augmentation and (self.grid != "slices" or self.grey_levels != "median"):
            others = ",".join(name for name in self.augmentation if name != "extraction")
            raise RecipeError(
                f"Recipe {self.name!r}: the augmentation 'extraction' finds brains by distances and grey levels that "
                f"grid='slices' and grey_levels='median' give; they are {self.grid!r} and {self.grey_levels!r}. Leave "
                f"it out, --set augmentation={others}, or them as they are."
            )
        if self.validation == "none" and self.monitor != "last":
            raise RecipeError(
                f"Recipe {self.name!r}: validation='none' leaves no {self.monitor}; set monitor='last', or validate."
            )

    @property
    def slices(self) -> int:
        """Slices that the network sees of a scan: those of a cube, or of a stack through a head of 150 mm."""
        return self.size if self.grid == "cube" else max(self.depth, round(_HEAD_MM / self.slice_mm))

    def changed(self, **fields: Any) -> "Recipe":
        """Return the recipe with some fields changed; unknown ones are a `RecipeError` that lists the fields."""
        unknown = sorted(set(fields) - set(_TYPES))
        if unknown:
            raise RecipeError(f"A recipe has no field {unknown[0]!r}; it has: {', '.join(_TYPES)}.")
        return dataclasses.replace(self, **fields)

    def with_settings(self, settings: list[str]) -> "Recipe":
        """Return the recipe with `field=value` texts applied, as `--set` gives them."""
        fields = {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals:
                raise RecipeError(f"--set {setting}: 'field=value' is needed, e.g. --set epochs=8.")
            fields[name.strip()] = text.strip()
        return self.changed(**fields)

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values, with the number of their format."""
        values = dataclasses.asdict(self).items()
        return {"format": FORMAT, **{k: list(v) if isinstance(v, tuple) else v for k, v in values}}

    @classmethod
    def from_json(cls, content: dict[str, Any], source: str = "recipe") -> "Recipe":
        """Read a recipe that `to_json` gave, now or in an earlier version; `source` names it in errors.

        A field that is not there has the value of the recipe's format, never that of today's recipe of its name.
        """
        check_is_recipe(content, source)
        try:
            return PAPER.changed(**written_fields(content))
        except RecipeError as error:
            raise RecipeError(f"{source}: {error}") from None


def find_recipe(name_or_file: str) -> Recipe:
    """Find a recipe by its name, one of `RECIPES`, or read it from a JSON file.

    A file that a person writes needs only its name and the fields that differ from the recipe of that name, or else
    from `paper`. One that this package wrote says its format and means what it meant then.
    """
    if name_or_file in RECIPES:
        return RECIPES[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        raise RecipeError(f"Recipe {name_or_file!r} is neither a file nor one of: {', '.join(RECIPES)}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecipeError(f"{path} is not a recipe: it is not JSON ({error}).") from None
    check_is_recipe(content, str(path))
    if "format" in content:
        return Recipe.from_json(content, str(path))
    try:
        return RECIPES.get(str(content["name"]), PAPER).changed(**content)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


_TYPES: types.MappingProxyType[str, Any] = types.MappingProxyType(typing.get_type_hints(Recipe))

PAPER = Recipe(name="paper")

RELEASED = Recipe(
    name="released",
    raw_values="float16",
    resampling="scipy",
    window_borders="none",
    frozen=("encoder", "bridge"),
    epsilon=1e-8,
    dice_smoothing=1.0,
    batch_size=3,
    patience=0,
    monitor="val_dice",
    validation="every 12th window",
    shuffle="every epoch",
    threshold_rule="released",
    seed=256,
)

# Sizes that five folds on two cores finish within minutes; the architecture and the threshold are the paper's.
DEMO = Recipe(
    name="demo",
    size=64,
    decoder_filters=(64, 32, 16, 8),
    bridge_filters=64,
    output_prior=0.01,
    learning_rate=1e-3,
    epochs=6,
    monitor="val_dice",
    shuffle="every epoch",
    cached_features="float32",
)

# Found by measured steps on nine patients with thick slices, see docs/results.md.
MODERN = Recipe(
    name="modern",
    grid="slices",
    spline_order=1,
    grey_levels="median",
    stride=4,
    encoder_range="imagenet",
    frozen=("block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2"),
    output_prior=0.01,
    unit_variance=("bridge", "decoder"),
    learning_rate=5e-4,
    schedule="cosine",
    warmup_steps=40,
    clip_norm=1.0,
    epochs=18,
    patience=0,
    monitor="last",
    validation="none",
    sampling="crops",
    augmentation=("flip", "rotation", "zoom", "brightness", "contrast", "blur", "noise", "extraction"),
    precision="bf16",
    threshold=32.0,
    smallest_lesion_mm3=20.0,
)

RECIPES = {recipe.name: recipe for recipe in (PAPER, RELEASED, MODERN, DEMO)}
