"""Choosing how a network predicts scans: method, engine and precision."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from planar3d.environment import may_have_gpu
from planar3d.errors import Planar3DError, RecipeError
from planar3d.extras import check_extra, is_installed
from planar3d.graph.description import Description, in_int8
from planar3d.inference.agreement import Checked
from planar3d.inference.plan import Plan, make_plan, why_apart
from planar3d.inference.shared import SharedInference
from planar3d.inference.tiled import TiledInference
from planar3d.networks.weights_file import Model
from planar3d.recipes import PAPER, Recipe
from planar3d.recipes.recipe import check_recipe
from planar3d.sections import check_choice, whole
from planar3d.transfer.metadata import greatest_in

# OpenVINO works without Keras, whose import takes as long as a scan.
if TYPE_CHECKING:
    import keras

METHODS = ("auto", "shared", "windowed")
ENGINES = ("auto", "keras", "openvino")
PRECISIONS = ("float32", "bf16", "int8")
_PACKAGES = ("openvino", "onnx")  # onnx writes the graphs


class Predictor(Protocol):
    """Predicts prepared scans, one after another."""

    description: str  # method, engine and precision, in a few words

    def __call__(self, voxels: np.ndarray, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """From voxels (slices, rows, cols, images) to probabilities, float32 (slices, rows, cols[, outputs])."""


@dataclass(frozen=True)
class _Source:
    """A network as Keras model and description, each created on request, with its precision."""

    description: Callable[[], Description]
    network: Callable[[], "keras.Model"]
    precision: str
    model: Model | None  # with its recipe; None for a network without a file


def _source(network: "keras.Model | Model", recipe: Recipe) -> _Source:
    if isinstance(network, Model):
        model = replace(network, recipe=recipe)
        build = cache(model.network)
        return _Source(cache(lambda: model.description(build)), build, "float32", model)
    from planar3d.graph.described import described
    from planar3d.networks.registry import refuse_other_ends
    from planar3d.training.precision import precision_of

    refuse_other_ends(network, recipe)
    return _Source(lambda: described(network), lambda: network, precision_of(network), None)


def predictor(
    network: "keras.Model | Model",
    recipe: Recipe | None = None,
    method: str = "auto",
    engine: str = "auto",
    precision: str | None = None,
    batch_size: int = 1,
) -> Predictor:
    """Create a predictor for scans with a network; one predictor serves many scans.

    Args:
        network: from (batch, depth, rows, cols, channels) to (batch, depth, rows, cols, outputs), with its current
            weights: make another predictor after training; or an open weights file, from which Keras builds the
            network only if needed.
        recipe: defines the tiles, and the network's input and output. Default: the weights file's, else `PAPER`.
        method: `"windowed"`, every window separately, as in the paper; `"shared"` computes what windows share only
            once, and of the rest only what the kept slices need; `"auto"`, shared if the network allows it.
        engine: `"keras"`, bit for bit the windowed result in float32 on TensorFlow; `"openvino"`, faster on CPUs,
            equal within rounding; `"auto"`, OpenVINO if it is installed and no GPU is found, and Keras if
            OpenVINO is too old or damaged, as `description` then says.
        precision: `"float32"`, `"bf16"` or `"int8"`. Default: the network's own; the engine `"auto"` uses bf16 if the
            processor supports it and masks agree with float32, as published, as found before, or as tested on the
            first scan. int8 is on OpenVINO only, for models whose card has the largest inputs of their layers;
            convolutions round to 8 bits, and the rest is bf16 or float32, as the processor supports.
        batch_size: windows per batch, for the windowed method.

    Raises:
        RecipeError: an unknown method, engine or precision, the windowed method on OpenVINO, int8 on Keras, or a
            network whose inputs or outputs differ from the recipe's.
        Planar3DError: the network's graph does not allow the method, the engine is missing or does not support it,
            int8 was not measured for the model, or a file has a network that is not the recipe's.
    """
    if recipe is None:
        recipe = network.recipe if isinstance(network, Model) else PAPER
    check_recipe(recipe)
    check_how(method, engine, precision, batch_size)
    source, note = _source(network, recipe), ""
    if precision == "int8":
        source, precision = _in_int8(source)
        engine, note = "openvino", ", convolutions in int8"
    if engine == "auto":
        try:
            if _openvino_is_faster():
                check_extra("openvino", *_PACKAGES)
            else:
                engine = "keras"
        except Planar3DError as error:
            engine, note = "keras", f" ({error})"
    made = _chosen(source, recipe, method, engine, precision, batch_size)
    made.description += note
    return made


def check_how(method: str, engine: str, precision: str | None, batch_size: int) -> None:
    """Refuse arguments of `predictor` that are unknown, out of range or conflicting, or whose packages are missing."""
    check_choice("method", method, METHODS)
    check_choice("engine", engine, ENGINES)
    if precision is not None:
        check_choice("precision", precision, PRECISIONS)
    whole("batch_size", batch_size, 1)
    if precision == "int8" and engine == "keras":
        raise RecipeError("precision='int8' works on OpenVINO only; use engine='openvino' or 'auto'.")
    if precision == "int8" or engine == "openvino":
        check_extra("openvino", *_PACKAGES)


def predict_volume(
    network: "keras.Model | Model",
    voxels: np.ndarray,
    recipe: Recipe | None = None,
    method: str = "shared",
    engine: str = "keras",
    precision: str | None = None,
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Predict lesion probabilities of a prepared scan.

    Args:
        voxels: (slices, rows, cols, images), as `prepare` returns them.
        network, recipe, method, engine, precision, batch_size: as in `predictor`, which is better for many scans.
        progress: called with the number of windows done and their total.

    Returns:
        float32 (slices, rows, cols) in [0, 1], or (slices, rows, cols, outputs) for several outputs.

    Raises:
        ValueError: voxels of another shape or range. Also what `predictor` raises.

    Source: Kolarik 2020, section 3.2 and eq. 1.
    """
    return predictor(network, recipe, method, engine, precision, batch_size)(voxels, progress)


def _chosen(
    source: _Source, recipe: Recipe, method: str, engine: str, precision: str | None, batch_size: int
) -> Predictor:
    """The predictor of a method; the engine `"auto"` is OpenVINO where it supports the network, else Keras."""
    if reason := why_apart(recipe):
        if method == "shared":
            raise Planar3DError(f"method='shared' works only for windows along depth with one output; {reason}.")
        return _apart(source, recipe, engine, precision, batch_size)
    if method == "windowed":
        if engine == "openvino":
            raise RecipeError(
                "method='windowed' is the reference, on Keras only; use method='shared' with OpenVINO and in int8, or "
                "engine='keras' in float32 or bf16."
            )
        return TiledInference(source.network(), recipe, batch_size, "keras", precision)
    try:
        return _shared(source, recipe, engine, precision)
    except Planar3DError as error:
        if method == "shared":
            raise
        fallback = _apart(source, recipe, engine, precision, batch_size)
        fallback.description += f" ({error})"
        return fallback


def _in_int8(source: _Source) -> tuple[_Source, str]:
    """The source with convolutions in int8, and the precision of the rest of the network."""
    from planar3d.inference.openvino_engine import multiplies_bf16

    model = source.model
    greatest = greatest_in(model.card or {}) if model else {}
    if not greatest:
        name = model.path.name if model else "The network"
        raise Planar3DError(
            f"{name} has no values for int8 in a model card; use another precision, or measure them with "
            "planar3d.inference.int8.measure_greatest and save them in the card as int8."
        )
    narrow = in_int8(source.description(), greatest)
    return replace(source, description=lambda: narrow), "bf16" if multiplies_bf16() else "float32"


def _apart(source: _Source, recipe: Recipe, engine: str, precision: str | None, batch_size: int) -> TiledInference:
    """Each tile separately."""
    precision = precision or source.precision
    if engine != "keras":
        try:
            return TiledInference(source.description(), recipe, batch_size, "openvino", precision)
        except Planar3DError:
            if engine == "openvino":
                raise
    return TiledInference(source.network(), recipe, batch_size, "keras", precision)


def _shared(source: _Source, recipe: Recipe, engine: str, precision: str | None) -> Predictor:
    if engine != "keras":
        plan = make_plan(source.description(), recipe.tiles.stride, exact=False)
        try:
            return _on_openvino(plan, recipe, precision or ("float32" if engine == "openvino" else None), source.model)
        except Planar3DError:
            if engine == "openvino":
                raise
    from planar3d.graph.described import described
    from planar3d.inference.keras_engine import KerasEngine
    from planar3d.training.precision import for_prediction, precision_of

    network, computed = for_prediction(source.network(), precision)
    plan = make_plan(described(network), recipe.tiles.stride, exact=precision_of(network) == "float32")
    return SharedInference(plan, KerasEngine(network), recipe.preparation, f"shared on Keras, {computed}")


def _on_openvino(plan: Plan, recipe: Recipe, precision: str | None, model: Model | None) -> Predictor:
    from planar3d.inference.openvino_engine import OpenVINOEngine, multiplies_bf16

    OpenVINOEngine().check(plan)
    in_float32, in_bf16 = (
        SharedInference(plan, OpenVINOEngine(name), recipe.preparation, f"shared on OpenVINO, {name}")
        for name in ("float32", "bf16")
    )
    if precision is None and multiplies_bf16():
        return Checked(in_bf16, in_float32, recipe, model)
    return in_bf16 if precision == "bf16" else in_float32


def _openvino_is_faster() -> bool:
    if not is_installed(*_PACKAGES):
        return False
    if not may_have_gpu():
        return True
    from planar3d.training.backends import on_gpu

    return not on_gpu()
