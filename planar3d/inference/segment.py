"""A scan file in, a lesion mask out: what `planar3d predict` does."""

from collections.abc import Callable, Mapping
from pathlib import Path

import keras

from planar3d.inference.predictor import predictor
from planar3d.inference.prepared_scan import native_mask, predict_prepared
from planar3d.networks.weights_file import load_network
from planar3d.recipes import Recipe
from planar3d.scans.case import read_images
from planar3d.scans.prepare import prepare
from planar3d.scans.volume import Scan


def segment(
    scan: str | Path | Scan | Mapping[str, str | Path | Scan],
    model: str | Path | tuple[keras.Model, Recipe],
    recipe: Recipe | None = None,
    batch_size: int = 1,
    assume_affine: bool = False,
    progress: Callable[[int, int], None] | None = None,
    method: str = "auto",
    engine: str = "auto",
    precision: str | None = None,
) -> Scan:
    """Segment one raw scan, or the images of one case.

    Args:
        scan: a NIfTI file, or a scan already read; of a model that takes several images, these by name.
        model: a weights file or the name of a published model; or a network and its recipe, as of `load_network`.
        recipe: overrides the recipe that the weights file carries.
        batch_size: windows at once.
        assume_affine: accept a file without geometry, see `read_scan`.
        progress: called with the windows done and all of them.
        method: see `predictor`.
        engine: see `predictor`.
        precision: see `predictor`.

    Returns:
        A mask uint8 {0, 1}, or a label map, on the native grid: shape, affine, codes and zooms are the input's.

    Raises:
        ScanError: the scan cannot be used.
        WeightsError: the weights cannot be used.
    """
    network, recipe = model if isinstance(model, tuple) else load_network(model, recipe)
    images = recipe.preparation.images
    given = {name: scan[name] for name in images if name in scan} if isinstance(scan, Mapping) else {images[0]: scan}
    prepared = prepare(read_images(given, assume_affine, recipe.preparation.flat), recipe)
    predict = predictor(network, recipe, method, engine, precision, batch_size)
    return native_mask(predict_prepared(predict, prepared, recipe, progress), prepared, recipe)
