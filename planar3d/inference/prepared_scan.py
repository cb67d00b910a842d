"""A scan prepared by a recipe, predicted one stack of interleaved slices at a time, and its mask on the native grid."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from planar3d.errors import ScanError, WeightsError
from planar3d.progress import Progress, part_of
from planar3d.recipes import PAPER, Recipe
from planar3d.recipes.recipe import check_recipe
from planar3d.scans.checks import faults_of_contrast, faults_of_image, faults_of_shape, faults_of_values, refuse
from planar3d.scans.geometry import Grid
from planar3d.scans.preparation.prepared import Prepared
from planar3d.scans.volume import Scan, on_grid_of
from planar3d.wording import is_or_are

if TYPE_CHECKING:
    from planar3d.inference.predictor import Predictor


def prepare(scan: Scan | Mapping[str, Scan], recipe: Recipe = PAPER, size: int | None = None) -> Prepared:
    """Turn a raw scan into the network's input, by the recipe's preparation.

    Args:
        scan: a raw FLAIR scan in any orientation; or all images of the recipe, by name, on one grid (in any
            order of its axes).
        recipe: defines the preparation.
        size: voxels along each axis (rows and columns of slices); default: the recipe's.

    Returns:
        A scan with `voxels`, uint8 or float (slices, rows, cols, images), and `geometry`, its native grid.

    Raises:
        ScanError: not a volume, a header of another shape, NaN or infinite voxels, the values of a mask or label map,
            raw values that float16 cannot represent (in recipes that use it), slices that are too wide, or images on
            different grids.

    Source: Kolarik 2020, section 3.2.
    """
    check_recipe(recipe)
    preparation = (recipe if size is None else recipe.changed(size=size)).preparation
    scans = scan if isinstance(scan, Mapping) else {preparation.images[0]: scan}
    if missing := [name for name in preparation.images if name not in scans]:
        raise ScanError(
            f"The recipe {recipe.name} needs {', '.join(preparation.images)}, but {', '.join(missing)} "
            f"{is_or_are(missing)} missing; given: {', '.join(scans) or 'none'}. Name them all, or choose another "
            "recipe."
        )
    images: dict[str, Scan] = {}
    for name in preparation.images:
        if not isinstance(each := scans[name], Scan):
            raise ScanError(f"A planar3d.Scan is needed, as from read_scan; got {type(each).__name__}.")
        each = replace(each)  # without its limits: voxels may have been changed in place since
        of_shape = faults_of_shape(each, "a single grey-scale volume")
        refuse(each, chain(of_shape, faults_of_values(each), faults_of_contrast(each), faults_of_image(each)))
        images[name] = on_grid_of(images[preparation.images[0]], each, "image") if images else each
    return preparation.prepare(images)


def predict_prepared(
    predict: "Predictor", prepared: Prepared, recipe: Recipe, progress: Progress | None = None
) -> np.ndarray:
    """Predict the probabilities of a prepared scan.

    Args:
        predict, prepared: as `predictor` and `prepare` return them, with the same recipe.
        progress: called with the number of windows done and their total.

    Returns:
        float32 (slices, rows, cols) in [0, 1], or (slices, rows, cols, outputs) for several outputs; background in
        slices that are in no stack, and outside the predicted part of planes.

    Raises:
        WeightsError: a network instead of a predictor.
        ScanError: a scan that is not prepared.
    """
    if not callable(predict) or hasattr(predict, "predict_on_batch"):  # as networks of Keras have
        raise WeightsError(
            f"A predictor is needed, as from planar3d.predictor(network, recipe); got {type(predict).__name__}."
        )
    _check(prepared, recipe)
    stacks = recipe.preparation.stacks(prepared, recipe.tiles.depth)
    outputs = () if recipe.targets.outputs == 1 else (recipe.targets.outputs,)
    probabilities = np.empty((*prepared.voxels.shape[:3], *outputs), np.float32)
    probabilities[:] = recipe.targets.background
    rows, cols = recipe.tiles.part(prepared.voxels)
    for number, stack in enumerate(stacks):
        voxels, told = prepared.voxels[stack, rows, cols], part_of(progress, number, len(stacks))
        probabilities[stack, rows, cols] = recipe.tiles.predicted(predict, voxels, prepared.geometry.across, told)
    return probabilities


def lesion_mask(probabilities: np.ndarray, recipe: Recipe, spacing: Grid) -> np.ndarray:
    """The labels uint8 (i, j, k) of probabilities (i, j, k) or (i, j, k, outputs), as the targets decode them."""
    return recipe.targets.decode(probabilities.reshape(*probabilities.shape[:3], -1), spacing)


def native_mask(probabilities: np.ndarray, prepared: Prepared, recipe: Recipe) -> Scan:
    """The lesion mask uint8 {0, 1}, or the label map, on the native grid.

    Args:
        probabilities: float32 (slices, rows, cols) on the grid of `prepared`, or (slices, rows, cols, outputs).
        recipe: defines the resampling to the native grid, and how probabilities become labels.

    Raises:
        ValueError: probabilities of another shape, or out of range.
        ScanError: a scan that is not prepared.
    """
    _check(prepared, recipe)
    probabilities = np.asarray(probabilities)
    shape, outputs = prepared.voxels.shape[:3], recipe.targets.outputs
    needed = shape if outputs == 1 else (*shape, outputs)
    if probabilities.shape not in (needed, (*shape, outputs)):
        raise ValueError(
            f"The probabilities have the shape {probabilities.shape}, but {needed} is needed, as predict_prepared "
            "returns them for this scan and recipe."
        )
    return recipe.preparation.native(probabilities, prepared, lambda volume, axes: lesion_mask(volume, recipe, axes))


def _check(prepared: Prepared, recipe: Recipe) -> None:
    if not isinstance(prepared, Prepared):
        raise ScanError(
            f"A scan prepared by planar3d.prepare is needed; got {type(prepared).__name__}. Segmenter.prepare makes a "
            "list of them, one for each model; predict_volume takes voxels."
        )
    check_recipe(recipe)
