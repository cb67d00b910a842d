"""From a case's images to its labels, by one model or by an ensemble, as in `planar3d predict`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from planar3d.errors import RecipeError, ScanError, WeightsError
from planar3d.inference.predictor import Predictor, check_how, predictor
from planar3d.inference.prepared_scan import lesion_mask, native_mask, predict_prepared, prepare
from planar3d.networks.weights_file import Model
from planar3d.progress import Progress, part_of
from planar3d.recipes import Recipe
from planar3d.recipes.recipe import check_recipe
from planar3d.scans.case import Case, read_images
from planar3d.scans.geometry import Geometry
from planar3d.scans.preparation.prepared import Prepared
from planar3d.scans.volume import Scan
from planar3d.wording import counted

Member = str | Path | Model | tuple[Any, Recipe]  # a network of Keras and its recipe
Images = str | Path | Scan | Mapping[str, str | Path | Scan] | Case


@dataclass(frozen=True)
class Probabilities:
    """The probabilities predicted for a case."""

    values: np.ndarray = field(repr=False)  # float32 (slices, rows, cols[, outputs]) in [0, 1]
    prepared: Prepared  # the case on the grid of the values
    recipe: Recipe  # defines how probabilities become labels
    how: str  # the method, engine and precision of this case

    def labels(self) -> np.ndarray:
        """The labels on the grid of the values, uint8 (slices, rows, cols)."""
        return lesion_mask(self.values, self.recipe, self.prepared.geometry.axes)

    def mask(self) -> Scan:
        """The labels on the native grid."""
        return native_mask(self.values, self.prepared, self.recipe)

    def foreground(self) -> Scan:
        """The probability of any target on the native grid, float32."""
        return self.prepared.restore(self.recipe.targets.foreground(self.values))


class Segmenter:
    """Segments cases with a model or an ensemble of models; one segmenter serves many cases.

    The probabilities of an ensemble (the folds of a recipe, or networks that take different images) are averaged in
    float32: on the prepared grid if it is the same for all models, otherwise on the native grid. Voxels outside a
    model's grid or outside the head are background for that model.

    Args:
        model: a weights file, the name of a published model, an open model, or a network and its recipe; for an
            ensemble a list of these.
        recipe: overrides the models' own.
        method, engine, precision, batch_size: as in `predictor`.

    Attributes:
        models: open models, or the given networks.
        recipes: recipes of the models.
        images: names of the images that a case needs.
        flat: whether images of a single slice are accepted.

    Raises:
        WeightsError: a model cannot be used.
        RecipeError: the models have different targets, or a method, engine or precision is unknown.

    Source: Messaoudi 2020 averages four networks, one for each contrast.
    """

    def __init__(
        self,
        model: Member | Sequence[Member],
        recipe: Recipe | None = None,
        method: str = "auto",
        engine: str = "auto",
        precision: str | None = None,
        batch_size: int = 1,
    ) -> None:
        check_how(method, engine, precision, batch_size)
        members = [_opened(member, recipe) for member in _listed(model)]
        self.models, self.recipes = [model for model, _ in members], [own for _, own in members]
        self._refuse_other_targets()
        self.images = tuple(dict.fromkeys(name for own in self.recipes for name in own.preparation.images))
        self.flat = all(own.preparation.flat for own in self.recipes)
        self._how: Any = {"method": method, "engine": engine, "precision": precision, "batch_size": batch_size}
        self._predictors: list[Predictor] = []

    @property
    def description(self) -> str:
        """Method, engine and precision, in a few words; known when the networks are loaded."""
        found = "; ".join(dict.fromkeys(predict.description for predict in self._predictors))
        return found if len(self.recipes) == 1 else f"mean of {len(self.recipes)} models, {found}"

    def load(self) -> None:
        """Build the networks if they are not built yet; `predict` calls this if needed.

        Raises what `Model.network` and `predictor` raise.
        """
        if not self._predictors:
            pairs = zip(self.models, self.recipes, strict=True)
            self._predictors = [predictor(network, recipe, **self._how) for network, recipe in pairs]

    def prepare(self, scans: Mapping[str, Scan]) -> list[Prepared]:
        """Prepare a case for each model; models with the same preparation share the result.

        Args:
            scans: the images by name, on one grid, in any order of its axes.

        Raises:
            ScanError: an image is missing, on another grid, or cannot be prepared.
        """
        scans = {**scans, **read_images({n: scans[n] for n in self.images if isinstance(scans.get(n), Scan)})}
        recipes = {recipe.preparation: recipe for recipe in self.recipes}
        made = {preparation: prepare(scans, recipe) for preparation, recipe in recipes.items()}
        return [made[recipe.preparation] for recipe in self.recipes]

    def predict(self, prepared: Sequence[Prepared], progress: Progress | None = None) -> Probabilities:
        """Predict a case with each model in turn.

        Args:
            prepared: as `prepare` returns it.
            progress: called with the number of tiles done and their total.

        Returns:
            Probabilities; on the native grid `mask()` gives labels and `foreground()` the probability of any target.

        Raises:
            ScanError: it is not what `prepare` returns.
        """
        types = [type(own).__name__ for own in prepared] if isinstance(prepared, Sequence) else type(prepared).__name__
        if types != [Prepared.__name__] * len(self.recipes):
            raise ScanError(
                f"The list that Segmenter.prepare returns is needed, of {counted(self.recipes, 'prepared scan')}, one "
                f"for each model; got {types}."
            )
        self.load()
        geometries = [own.geometry for own in prepared]
        alike = len({(grid.view, grid.resampled, grid.prepared, grid.offset) for grid in geometries}) == 1
        mean: Any = None
        for number, (predict, recipe, own) in enumerate(zip(self._predictors, self.recipes, prepared, strict=True)):
            values = predict_prepared(predict, own, recipe, part_of(progress, number, len(prepared)))
            if not alike:
                values = recipe.targets.with_background(own.restore(values).voxels)
            mean = values if mean is None else np.add(mean, values, out=mean)
        mean /= len(prepared)
        return Probabilities(mean, prepared[0] if alike else _native(prepared[0]), self.recipes[0], self.description)

    def _refuse_other_targets(self) -> None:
        """Refuse models whose outputs have different meanings or decoding rules."""
        wanted = self.recipes[0].targets.to_json()
        for model, recipe in zip(self.models, self.recipes, strict=True):
            own = recipe.targets.to_json()
            other = own["name"] != wanted["name"]
            if apart := ["name"] if other else [name for name in own if own[name] != wanted[name]]:
                found, first = (", ".join(f"{name}={said[name]}" for name in apart) for said in (own, wanted))
                raise RecipeError(
                    f"{model.path if isinstance(model, Model) else model.name} has targets with {found}, but the first "
                    f"model has {first}; only probabilities of the same targets can be averaged. Name other models"
                    f"{'.' if other else ', or set one value of each for all (--set FIELD=VALUE).'}"
                )


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
        recipe, method, engine, precision, batch_size: as in `Segmenter`.
        assume_affine: accept a file without geometry, see `read_scan`.
        progress: called with the number of windows done and their total.

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
    """Segment a case with a segmenter, which can be reused; case, result and errors are as for `segment`."""
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


def _listed(model: Any) -> Sequence[Any]:
    is_list = isinstance(model, Sequence) and not isinstance(model, str)
    if not is_list or (model and isinstance(model[-1], Recipe)):
        return [model]
    if not model:
        raise WeightsError("No model was given; name a weights file or a published model.")
    return model


def _opened(member: Member, recipe: Recipe | None) -> tuple[Any, Recipe]:
    if isinstance(member, tuple | list) and len(member) == 2:
        check_recipe(used := recipe or member[1])
        return member[0], used
    if not isinstance(member, str | os.PathLike | Model):
        raise WeightsError(
            "A model is a weights file, the name of a published model, or a pair (network, recipe); got "
            f"{type(member).__name__}."
        )
    opened = Model.open(member, recipe)
    return opened, opened.recipe


def _native(prepared: Prepared) -> Prepared:
    """The native grid as a prepared grid without any change."""
    header, shape = prepared.geometry.header, prepared.geometry.shape
    view = "".join(nib.aff2axcodes(header.get_best_affine()))
    return Prepared(np.broadcast_to(np.uint8(0), (*shape, 1)), Geometry(header, view, shape, shape))
