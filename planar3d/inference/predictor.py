"""Choosing how a network predicts scans: method, engine and precision."""

import importlib.util
from collections.abc import Callable
from typing import Protocol

import keras
import numpy as np

from planar3d.errors import Planar3DError, RecipeError
from planar3d.inference.keras_engine import KerasEngine
from planar3d.inference.plan import make_plan, why_apart
from planar3d.inference.shared import SharedInference
from planar3d.inference.tiled import WindowedInference
from planar3d.recipes import PAPER, Recipe
from planar3d.training.backends import on_gpu
from planar3d.training.precision import in_precision, precision_of

METHODS = ("auto", "shared", "windowed")
ENGINES = ("auto", "keras", "openvino")
PRECISIONS = ("float32", "bf16")

# Dice of a bf16 with a float32 mask from which on `auto` trusts bf16.
AGREEMENT = 0.99


class Predictor(Protocol):
    """Predicts prepared scans, one after another.

    Attributes:
        description: method, engine and precision, in a few words.
    """

    description: str

    def __call__(self, voxels: np.ndarray, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """From uint8 (slices, rows, cols) to lesion probabilities, float32 of the same shape."""
        ...


def predictor(
    network: keras.Model,
    recipe: Recipe = PAPER,
    method: str = "auto",
    engine: str = "auto",
    precision: str | None = None,
    batch_size: int = 1,
) -> Predictor:
    """Make what predicts scans with a network; one serves many scans.

    Args:
        network: takes (batch, depth, rows, cols, channels) and gives (batch, depth, rows, cols, 1).
        recipe: depth and stride of the windows, and the channels.
        method: `"windowed"`, every window by itself, as the paper; `"shared"`, what windows have in common once, and
            of each window what the composition keeps; `"auto"`, shared where the network allows it.
        engine: `"keras"`, bit for bit the windowed result in float32 on TensorFlow; `"openvino"`, faster on CPUs,
            equal within rounding; `"auto"`, OpenVINO where it is installed and no GPU is seen.
        precision: `"float32"` or `"bf16"`. By default the network's own; the engine `"auto"` then takes bf16 where the
            processor multiplies in it and the first scan's mask agrees with float32.
        batch_size: windows at once, of the windowed method.

    Raises:
        RecipeError: an unknown method, engine or precision, or the windowed method on OpenVINO.
        Planar3DError: the network's graph does not allow the method, or the engine is not installed.
    """
    _check("method", method, METHODS)
    _check("engine", engine, ENGINES)
    if precision is not None:
        _check("precision", precision, PRECISIONS)
    if reason := why_apart(recipe):
        if method == "shared":
            raise Planar3DError(f"method='shared' is for windows along depth, of one image and one output; {reason}.")
        return _apart(network, recipe, engine, precision, batch_size)
    if method == "windowed" and engine == "openvino":
        raise RecipeError(
            "method='windowed' is the reference, on Keras; use method='shared' with OpenVINO, or engine='keras'."
        )
    if method == "windowed":
        return WindowedInference(_in(precision, network), recipe, batch_size)
    try:
        return _shared(network, recipe, engine, precision)
    except Planar3DError as error:
        if method == "shared" or engine == "openvino":
            raise
        fallback = WindowedInference(_in(precision, network), recipe, batch_size)
        fallback.description += f" ({error})"
        return fallback


def predict_volume(
    network: keras.Model,
    voxels: np.ndarray,
    recipe: Recipe = PAPER,
    method: str = "shared",
    engine: str = "keras",
    precision: str | None = None,
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Predict lesion probabilities of a prepared scan.

    Args:
        network: takes (batch, depth, rows, cols, channels) and gives (batch, depth, rows, cols, 1).
        voxels: uint8 (slices, rows, cols), as `prepare` gives them.
        recipe, method, engine, precision, batch_size: as in `predictor`, which is to be preferred for many scans.
        progress: called with the windows done and all of them.

    Returns:
        float32 (slices, rows, cols) in [0, 1].

    Source: Kolarik 2020, section 3.2 and eq. 1.
    """
    return predictor(network, recipe, method, engine, precision, batch_size)(voxels, progress)


def _check(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RecipeError(f"{name}={value!r} is unknown; choose one of: {', '.join(map(repr, choices))}.")


def _apart(
    network: keras.Model, recipe: Recipe, engine: str, precision: str | None, batch_size: int
) -> WindowedInference:
    """Every tile by itself, on OpenVINO where it is there and knows the network, unless another engine is named."""
    if engine == "openvino" or (engine == "auto" and _has_openvino() and not on_gpu()):
        try:
            return WindowedInference(network, recipe, batch_size, "openvino", precision)
        except Planar3DError:
            if engine == "openvino":
                raise
    return WindowedInference(network, recipe, batch_size, "keras", precision)


def _in(precision: str | None, network: keras.Model) -> keras.Model:
    return in_precision(network, precision) if precision else network


def _shared(network: keras.Model, recipe: Recipe, engine: str, precision: str | None) -> Predictor:
    if engine == "openvino":
        return _on_openvino(network, recipe, precision or "float32")
    if engine == "auto" and _has_openvino() and not on_gpu():
        try:
            return _on_openvino(network, recipe, precision)
        except Planar3DError:
            pass  # Keras computes what OpenVINO does not know
    network = _in(precision, network)
    plan = make_plan(network, recipe.tiles.stride, exact=precision_of(network) == "float32")
    return SharedInference(
        plan, KerasEngine(), recipe.preparation.channels, f"shared on Keras, {precision_of(network)}"
    )


def _on_openvino(network: keras.Model, recipe: Recipe, precision: str | None) -> Predictor:
    if not _has_openvino():
        raise Planar3DError(
            "engine='openvino' needs OpenVINO and onnx. Install them: pip install 'planar3d[openvino]'."
        )
    from planar3d.inference.openvino_engine import OpenVINOEngine, multiplies_bf16

    plan = make_plan(network, recipe.tiles.stride, exact=False)
    OpenVINOEngine().check(plan)
    in_float32, in_bf16 = (
        SharedInference(plan, OpenVINOEngine(name), recipe.preparation.channels, f"shared on OpenVINO, {name}")
        for name in PRECISIONS
    )
    if precision is None and multiplies_bf16():
        return _Checked(in_bf16, in_float32, recipe)
    return in_bf16 if precision == "bf16" else in_float32


def _has_openvino() -> bool:
    return all(importlib.util.find_spec(package) for package in ("openvino", "onnx"))  # which reads what onnx writes


class _Checked:
    """Predicts in bf16 once the first scan has shown that its mask agrees with float32, else in float32."""

    def __init__(self, in_bf16: SharedInference, in_float32: SharedInference, recipe: Recipe) -> None:
        self.in_bf16, self.in_float32, self.recipe = in_bf16, in_float32, recipe
        self.chosen: SharedInference | None = None
        self.description = in_bf16.description + " if the first scan's mask agrees with float32"

    def __call__(self, voxels: np.ndarray, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        if self.chosen is not None:
            return self.chosen(voxels, progress)
        probabilities = self.in_bf16(voxels, progress)
        # Compiling takes less than a second, and both at once would take a GiB more than either.
        self.in_bf16.release()
        agreement = self._agreement(voxels, probabilities)
        self.in_float32.release()
        self.chosen = self.in_bf16 if agreement >= AGREEMENT else self.in_float32
        verb = "agrees" if agreement >= AGREEMENT else "does not agree"
        self.description = f"{self.chosen.description}; bf16 {verb} with float32 (Dice of the masks {agreement:.4f})"
        return probabilities if self.chosen is self.in_bf16 else self.in_float32(voxels, progress)

    def _agreement(self, voxels: np.ndarray, probabilities: np.ndarray) -> float:
        """Dice of both masks in the middle of a window, of that with most voxels in bf16; 1 where both are empty."""
        depth, stride, targets = self.recipe.tiles.depth, self.recipe.tiles.stride, self.recipe.targets
        margin = (depth - stride) // 2

        def marked(part: np.ndarray) -> np.ndarray:
            # The rule may be relative to the highest probability, which is that of the whole scan for any part of it.
            return targets.assign(part[..., np.newaxis], float(probabilities.max()))

        in_bf16 = marked(probabilities)
        counts = in_bf16.sum(axis=(1, 2))[margin : len(in_bf16) - margin]
        start = int(np.argmax(np.convolve(counts, np.ones(stride), "valid")[::stride])) * stride
        found = in_bf16[start + margin : start + margin + stride]
        expected = marked(self.in_float32.middle(voxels[start : start + depth]))
        both = int(expected.sum()) + int(found.sum())
        return 2 * int((expected & found).sum()) / both if both else 1.0
