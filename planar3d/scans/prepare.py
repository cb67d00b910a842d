"""Preparation by a recipe: from a raw scan to the network's input grid."""

from collections.abc import Mapping
from itertools import chain

from planar3d.errors import ScanError
from planar3d.recipes import PAPER, Recipe
from planar3d.recipes.recipe import check_recipe
from planar3d.scans.checks import faults_of_contrast, faults_of_shape, faults_of_values, refuse
from planar3d.scans.preparation.prepared import Prepared
from planar3d.scans.volume import Scan
from planar3d.wording import is_or_are


def prepare(scan: Scan | Mapping[str, Scan], recipe: Recipe = PAPER, size: int | None = None) -> Prepared:
    """Turn a raw scan into the network's input, by the recipe's preparation.

    Args:
        scan: a raw FLAIR scan in any orientation; or all images of the recipe, by name, on one grid.
        recipe: defines the preparation: grid, spline order, resampling by scipy or its matrices, grey levels, and
            whether raw values are rounded to float16 as in the release.
        size: voxels along each axis (rows and columns of slices); default: the recipe's.

    Raises:
        ScanError: not a volume, NaN or infinite voxels, the same value everywhere, raw values that float16 cannot
            represent (in recipes that use it), or slices that are too wide.

    Source: Kolarik 2020, section 3.2.
    """
    check_recipe(recipe)
    preparation = (recipe if size is None else recipe.changed(size=size)).preparation
    scans = {preparation.images[0]: scan} if not isinstance(scan, Mapping) else scan
    if missing := [name for name in preparation.images if name not in scans]:
        raise ScanError(
            f"The recipe {recipe.name} takes the images {', '.join(preparation.images)}, and {', '.join(missing)} "
            f"{is_or_are(missing)} missing; given: {', '.join(scans) or 'none'}. Name them all, or choose another "
            "recipe."
        )
    for each in scans.values():
        if not isinstance(each, Scan):
            raise ScanError(f"A planar3d.Scan is needed, as from read_scan; got {type(each).__name__}.")
        of_shape = faults_of_shape(each, "a single grey-scale volume")
        refuse(each, chain(of_shape, faults_of_values(each), faults_of_contrast(each)))
    return preparation.prepare(scans)
