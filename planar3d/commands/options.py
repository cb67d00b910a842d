"""Options that several commands share, and the recipe that they select."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import BadParameter, Option

from planar3d.commands.output import say

# Recipes import SciPy and nibabel, which would delay --help by a second.
if TYPE_CHECKING:
    from planar3d.networks.weights_file import Model as OpenModel
    from planar3d.recipes import Recipe

Data = Annotated[Path, Option("--data", help="Folder with a known layout, e.g. BIDS or BraTS, or a CSV table.")]


def _folder(path: Path | None) -> Path | None:
    """Refuse a file, and the name of an image, which would become that of a folder."""
    from planar3d.scans.image_files import suffix

    if path is None:
        return None
    if suffix(path) and not path.is_dir():
        raise BadParameter(f"{path} is the name of an image; name a folder, where files are named after scans.")
    if why := why_no_folder(path):
        raise BadParameter(why)
    return path


def why_no_folder(path: Path) -> str:
    """A sentence if something other than a folder is at a path or above it, else nothing."""
    lowest = next((place for place in (path, *path.parents) if os.path.lexists(place)), None)
    is_other = lowest is not None and not lowest.is_dir()
    return f"{lowest} is not a folder; name one, which need not exist." if is_other else ""


Out = Annotated[Path, Option("--out", help="Folder to write to.", callback=_folder)]
RunOut = Annotated[Path | None, Option("--out", help="Folder to write to; default: runs/SYSTEM.", callback=_folder)]
Model = Annotated[
    str, Option("--model", help="Weights file of a trained network, or a published model: ms-flair-open.")
]
RecipeName = Annotated[str, Option("--recipe", help="Name of a recipe, e.g. paper or wacker2019-3d, or a JSON file.")]
Settings = Annotated[list[str] | None, Option("--set", help="field=value changes the recipe; repeatable.")]
Size = Annotated[
    int | None,
    Option(
        "--size",
        help="Rows and columns of prepared slices: cubes are resampled to this size (recipe paper), slices of a fixed "
        "pixel size are cropped to it (recipe modern).",
    ),
]
Seed = Annotated[int | None, Option("--seed", help="Seed for initialization and shuffling.")]
Precision = Annotated[str | None, Option("--precision", help="float32, bf16 (bfloat16) or float16.")]
Folds = Annotated[
    str | None,
    Option(
        "--folds",
        help="Number of folds, your own folds.json, official (the data set's split), or none (train on every scan; "
        "only for prepare and train).",
    ),
]
Only = Annotated[str | None, Option("--only", help="Folds to run, e.g. 2,4; default: all.")]
AssumeAffine = Annotated[
    bool,
    Option(
        "--assume-affine",
        help="Assume that scans without sform and qform are stored left-anterior-superior, and their masks likewise.",
    ),
]
Cluster = Annotated[
    str | None,
    Option(
        "--cluster",
        help="Run on the workers of a dask scheduler: its address, its JSON file, or a YAML file for dask-jobqueue.",
    ),
]
Devices = Annotated[
    str | None,
    Option("--devices", help="GPUs that train a fold together: all, or numbers from 0, e.g. 0,1; default: the first."),
]
AsJson = Annotated[
    bool, Option("--json", help="Print results as JSON on standard output, and the log on standard error.")
]


def chosen_recipe(name: "str | Recipe", settings: list[str] | None = None, **options: int | str | None) -> "Recipe":
    """The recipe, given or found by name or file, changed by `--set` and the other options that are given."""
    from planar3d.recipes import find_recipe

    recipe = find_recipe(name) if isinstance(name, str) else name
    given = [f"{field}={value}" for field, value in options.items() if value is not None]
    return recipe.with_settings([*(settings or []), *given])


def open_model(
    model: str, name: str | None, settings: list[str] | None = None, **options: int | str | None
) -> "OpenModel":
    """A model with the recipe of that name, by default the weights file's own, changed by the options.

    Cautions about that recipe are printed on standard error.
    """
    from planar3d.networks.weights_file import Model
    from planar3d.recipes import find_recipe

    opened = Model.open(model, find_recipe(name) if name else None)
    changed = replace(opened, recipe=chosen_recipe(opened.recipe, settings, **options))  # which may still be assumed
    for caution in changed.cautions:
        say(caution, err=True)
    return changed


def open_models(
    models: str, name: str | None, settings: list[str] | None, size: int | None = None
) -> "list[OpenModel]":
    """A model as `open_model` opens it, or several, separated by commas."""
    # The name of a file may have commas.
    names = [models] if Path(models).is_file() else filter(None, map(str.strip, models.split(",")))
    return [open_model(each, name, settings, size=size) for each in names]
