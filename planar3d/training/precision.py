"""16-bit precision: building under a Keras dtype policy, and what a CPU computes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from planar3d.conversion.held_objects import cloned, rebuilt
from planar3d.environment import bf16_instructions
from planar3d.errors import RecipeError
from planar3d.graph.keras_graph import name_of
from planar3d.sections import check_choice
from planar3d.training.backends import keeping_float32, on_gpu, trains

NO_BF16 = "no bf16 instructions were found on this processor"


@dataclass(frozen=True)
class Precision:
    """The computing precision of a network."""

    policy: str  # Keras' name
    scales_loss: bool = False  # whether gradients would otherwise round to 0
    guarded: bool = False  # whether its gradients are compared with float32, see `gradient_check`


PRECISIONS = {
    "float32": Precision("float32"),
    "bf16": Precision("mixed_bfloat16", guarded=True),
    "float16": Precision("mixed_float16", scales_loss=True),
}


def check_precision(precision: str) -> None:
    """Raise a `RecipeError` for an unknown precision, one that cannot be had here, and another `floatx` of Keras.

    Keras' backend OpenVINO computes bf16 wrongly without a message: a scan had 58 lesions instead of 39. Float32 it
    computes in bf16 where the processor can. TensorFlow lacks float16 on CPUs. Inputs and losses have the type `floatx`
    whatever the precision.
    """
    check_choice("precision", precision, PRECISIONS)
    if (floatx := keras.config.floatx()) != "float32":
        raise RecipeError(
            f"Keras is set to {floatx=}, which also inputs and losses would have, but float32 is needed. Call "
            "keras.config.set_floatx('float32'), or change that line of Keras' keras.json."
        )
    backend = keras.backend.backend()
    if backend == "openvino":
        raise RecipeError(
            "Where Keras runs on openvino, bf16 is wrong and float32 may be computed in bf16. Set "
            "KERAS_BACKEND=tensorflow; prediction with OpenVINO does not need it as Keras' backend."
        )
    if precision != "float32" and not trains(backend):
        raise RecipeError(
            f"precision={precision!r} is wrong where Keras runs on {backend}. Use float32, or set "
            "KERAS_BACKEND=tensorflow."
        )
    if precision == "float16" and backend == "tensorflow" and not on_gpu():
        raise RecipeError(
            "precision='float16' needs a GPU, but TensorFlow finds none; on a CPU it cannot pool volumes in float16. "
            "Use bf16 or float32."
        )


def built_with(precision: str, build: Callable[[], keras.Model]) -> keras.Model:
    """Build a network under the Keras dtype policy of `precision`; the previous policy is restored afterwards.

    Args:
        precision: `"float32"`, `"bf16"` or `"float16"`; the last two keep the weights in float32.

    Raises:
        RecipeError: as `check_precision`.
    """
    check_precision(precision)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(PRECISIONS[precision].policy)
    try:
        return keeping_float32(build())
    finally:
        keras.config.set_dtype_policy(before)


def precision_of(network: keras.Model) -> str:
    """The computing precision of a network: that of its layers with weights, the narrowest if they differ."""
    computes = {layer.compute_dtype for layer in flat_layers(network) if layer.weights}
    return next((p for p, dtype in (("bf16", "bfloat16"), ("float16", "float16")) if dtype in computes), "float32")


def computed_precision(precision: str) -> str:
    """The precision computed here for a requested precision: float32 for bf16 that a CPU would emulate.

    Without bf16 instructions TensorFlow multiplies value by value, and torch's 3D convolutions take four times as long.
    """
    emulated = precision == "bf16" and bf16_instructions() == "none" and not on_gpu()
    return "float32" if emulated else precision


def for_prediction(network: keras.Model, precision: str | None) -> tuple[keras.Model, str]:
    """A network in `computed_precision` of the requested one, by default its own; and the computed one for the log.

    Raises what `check_precision` raises.
    """
    requested = precision or precision_of(network)
    check_precision(requested)
    computed = computed_precision(requested)
    return in_precision(network, computed), computed if computed == requested else f"{computed}: {NO_BF16}"


def in_precision(network: keras.Model, precision: str) -> keras.Model:
    """A functional network in another precision, with copies of its weights; itself if it already has that precision.

    Output layers stay in float32, since probabilities are compared with thresholds.
    """
    is_double = any(layer.compute_dtype == "float64" for layer in flat_layers(network))
    if precision == precision_of(network) and not is_double:  # TensorFlow does not pool volumes in float64
        return network
    last = {name_of(tensor) for tensor in network.outputs}

    def cast(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer) or isinstance(layer, keras.layers.InputLayer):
            return rebuilt(layer)
        return rebuilt(layer, dtype="float32" if layer.name in last else PRECISIONS[precision].policy)

    return keeping_float32(cloned(network, cast))


def flat_layers(network: keras.Model) -> Iterator[keras.Layer]:
    """All layers of a network, including nested networks and layers applied by a trainer."""
    for layer in network.layers:
        layer = getattr(layer, "kept", layer)  # the unchanged layer of a trainer
        if isinstance(layer, keras.Model):
            yield from flat_layers(layer)
        else:
            yield layer
