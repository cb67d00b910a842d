"""Preparation by a recipe: a raw scan to the 8-bit grid the network sees."""

from collections.abc import Mapping

from planar3d.errors import ScanError
from planar3d.recipes import PAPER, Recipe
from planar3d.scans.preparation.prepared import Prepared
from planar3d.scans.volume import Scan


def prepare(scan: Scan | Mapping[str, Scan], recipe: Recipe = PAPER, size: int | None = None) -> Prepared:
    """Turn a raw scan into what the network sees, as the recipe's preparation does.

    Args:
        scan: a raw FLAIR scan in any orientation; or all images that the recipe takes, by name, on one grid.
        recipe: gives the preparation: grid, spline order, whether scipy or its matrices resample, how grey levels are
            made, and whether raw values pass through float16 as in the release.
        size: voxels along each axis (rows and columns of slices); the recipe's if None.

    Raises:
        ScanError: raw values that the recipe's float16 cannot hold, or slices that are too wide to be resampled.

    Source: Kolarik 2020, section 3.2.
    """
    preparation = (recipe.changed(size=size) if size else recipe).preparation
    scans = {preparation.images[0]: scan} if isinstance(scan, Scan) else scan
    if missing := [name for name in preparation.images if name not in scans]:
        raise ScanError(
            f"The recipe {recipe.name} takes the images {', '.join(preparation.images)}, and {', '.join(missing)} is "
            f"missing; given: {', '.join(scans)}. Name them all, or another recipe."
        )
    return preparation.prepare(scans)
