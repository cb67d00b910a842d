"""From a scan file to a lesion mask, as in `planar3d predict`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from planar3d.errors import WeightsError
from planar3d.inference.segmenter import Member, Segmenter
from planar3d.progress import Progress
from planar3d.recipes import Recipe
from planar3d.scans.case import Case, read_images
from planar3d.scans.volume import Scan

Images = str | Path | Scan | Mapping[str, str | Path | Scan] | Case


def segment(
    scan: Images,
    model: Member | Sequence[Member],
    recipe: Recipe | None = None,
    batch_size: int = 1,
    assume_affine: bool = False,
    progress: Progress | None = None,
    method: str = "auto",
    engine: str = "auto",
    precision: str | None = None,
) -> Scan:
    """Segment one raw scan, or the images of one case.

    Args:
        scan: a NIfTI file or a `Scan`; for models of several images, a case or a dictionary of images by name.
        model: a weights file or the name of a published model; or a network and its recipe, as from `load_network`; or
            a list of models for averaging, see `Segmenter`.
        recipe: overrides the recipe in the weights file.
        batch_size: windows per batch.
        assume_affine: accept a file without geometry, see `read_scan`.
        progress: called with the number of windows done and their total.
        method, engine, precision: see `predictor`.

    Returns:
        A mask uint8 {0, 1}, or a label map, with the input's shape, affine, codes and zooms.

    Raises:
        ScanError: the scan cannot be used.
        WeightsError: the weights cannot be used.
        RecipeError: several models do not have the same targets.
    """
    segmenter = Segmenter(model, recipe, method=method, engine=engine, precision=precision, batch_size=batch_size)
    return segment_case(scan, segmenter, assume_affine, progress)


def segment_case(
    case: Images, segmenter: Segmenter, assume_affine: bool = False, progress: Progress | None = None
) -> Scan:
    """Segment a case with a segmenter, which can be reused.

    `planar3d predict` also prepares, predicts and makes the mask, for three scans at a time; the scoring of
    a fold starts from the scans prepared for training.
    """
    if not isinstance(segmenter, Segmenter):
        raise WeightsError(f"A planar3d.Segmenter(model) is needed; got {type(segmenter).__name__}.")
    images = segmenter.images
    if isinstance(case, Case):
        case = case.images
    given = case if isinstance(case, Mapping) else {images[0]: case}
    if set(images) <= given.keys():  # else preparing names what is missing, and all that was given
        given = {name: given[name] for name in images}
    prepared = segmenter.prepare(read_images(given, assume_affine, segmenter.flat))
    return segmenter.predict(prepared, progress).mask()
