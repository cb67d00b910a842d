"""The check of bf16 gradients against float32, before training."""

import itertools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from planar3d.errors import RecipeError
from planar3d.progress import Notify
from planar3d.recipes import Recipe
from planar3d.training.backends import layer_gradients, on_gpu
from planar3d.training.precision import NO_BF16, PRECISIONS, computed_precision, flat_layers
from planar3d.wording import counted

TOLERANCE = 0.01  # largest relative error of a gradient for bf16; NaN exceeds it


@dataclass(frozen=True)
class GradientCheck:
    """The result of comparing bf16 gradients with float32; as text, one sentence for the log."""

    # Relative errors ‖g16 - g32‖ / ‖g32‖ by layer: of the kernel's gradient, and of the input's.
    errors: dict[str, tuple[float, float]]
    kept_float32: tuple[str, ...] = ()  # names of the layers switched to float32

    def __str__(self) -> str:
        if not self.errors:
            return "No bf16 gradients are compared with float32: only those of trained layers on a CPU can be wrong."
        agreeing = [max(pair) for name, pair in self.errors.items() if name not in self.kept_float32]
        within = f" within {100 * max(agreeing):.1f} %" if agreeing else ""
        kept = f"; kept in float32: {', '.join(self.kept_float32)}" if self.kept_float32 else ""
        return f"bf16 gradients agree with float32{within} in {len(agreeing)} of {counted(self.errors, 'layer')}{kept}."


def guard_precision(network: keras.Model, recipe: Recipe, windows: int, notify: Notify) -> None:
    """Check bf16 gradients against float32 layer by layer before the first step, and fall back where they differ.

    Args:
        windows: training windows of an epoch; the fault depends on the shape, so a smaller last batch is checked too.
    """
    computed = computed_precision(recipe.training.precision)
    if computed != recipe.training.precision:
        notify(f"All layers are computed in {computed}: {NO_BF16}.")
    if PRECISIONS[computed].guarded:
        most = recipe.training.batch_size
        for batch_size in sorted({min(most, windows), windows % most} - {0}, reverse=True):
            notify(f"batches of {batch_size}: {guard_gradients(network, batch_size, notify=notify)}")


def guard_gradients(network: keras.Model, batch_size: int, notify: Notify = lambda text: None) -> GradientCheck:
    """Compare the bf16 gradients of each layer with float32 on its real shapes, and keep float32 where they differ.

    oneDNN's bf16 gradients of 3D kernels are wrong for some layer shapes, with AMX and with AVX-512, from 2 % to NaN,
    while the forward pass is correct. Rounding alone gives 0.2 %. Call it once, before the first training step: a step
    traced earlier does not change.

    The layers of `trainer_of` avoid those gradients and should be used for training in bf16. In plain layers the fault
    varies from run to run, and with AMX may end the process; on a CPU, TensorFlow sums the gradients of their biases,
    which are not compared, in bf16, wrong for every large volume.

    Args:
        network: a functional model with all sizes known except the batch.
        batch_size: windows in a training batch. The fault depends on the whole shape, so a smaller last batch needs its
            own check.
        notify: gets a sentence before the comparison, which takes as long as about ten training steps.

    Returns:
        The errors by layer, and the layers switched to float32; on a GPU nothing is compared.

    Raises:
        RecipeError: a size of the network is unknown.
    """
    # Frozen layers behind the first trained one still pass gradients on.
    reached = itertools.dropwhile(lambda layer: not layer.trainable_variables, flat_layers(network))
    chosen = [layer for layer in reached if layer.compute_dtype == "bfloat16" and hasattr(layer, "kernel")]
    if on_gpu() or not chosen:
        return GradientCheck({})
    notify(f"Comparing the bf16 gradients of {counted(chosen, 'layer')} with float32 ...")
    errors = {layer.name: _gradient_errors(layer, batch_size) for layer in chosen}
    wrong = [layer for layer in chosen if not all(error <= TOLERANCE for error in errors[layer.name])]
    for layer in wrong:
        layer.dtype_policy = "float32"
    return GradientCheck(errors, tuple(layer.name for layer in wrong))


def _gradient_errors(layer: keras.Layer, batch_size: int) -> tuple[float, float]:
    """Relative errors of the kernel's and the input's bf16 gradient, on random values exact in bf16.

    The larger of two runs, since wrong gradients vary from run to run: they read uninitialized memory.
    """
    plain = getattr(layer, "replaced", layer)
    shapes = [(batch_size, *tensor.shape[1:]) for tensor in (plain.input, plain.output)]
    if any(None in shape for shape in shapes):
        raise RecipeError(
            f"Layer {layer.name} takes {tuple(plain.input.shape)}; checking bf16 gradients needs all sizes except the "
            "batch. Build the network with the size of a window."
        )
    x, upstream = (_random(shape, seed) for seed, shape in enumerate(shapes))
    # Scaled so that outputs keep the variance of inputs, whatever the number of terms in a sum.
    kernel = _random(layer.kernel.shape, seed=2) / float(np.sqrt(np.prod(layer.kernel.shape[:-1])))
    of_kernel, of_input = _gradients(_twin(plain, "float32", kernel), x, upstream)
    in_bf16 = _twin(plain, layer.dtype_policy, kernel)
    if plain is not layer:
        in_bf16 = layer.over(in_bf16)
        of_input = of_input * layer.passed_on()
    runs = (zip(_gradients(in_bf16, x, upstream), (of_kernel, of_input), strict=True) for _ in range(2))
    kernel_error, input_error = np.max([[_relative_error(*pair) for pair in run] for run in runs], axis=0)
    return float(kernel_error), float(input_error)


def _random(shape: tuple[int, ...], seed: int) -> Any:
    # With a given seed, Keras does not use its own generator.
    return keras.random.normal(shape, dtype="bfloat16", seed=seed)


def _twin(layer: keras.Layer, policy: Any, kernel: Any) -> keras.Layer:
    """The layer under another policy, with this kernel and without activation, so gradients need no forward pass."""
    config = layer.get_config() | {"dtype": policy, "activation": "linear"}
    # Zeros consume no random numbers of the training.
    config |= {"kernel_initializer": "zeros", "bias_initializer": "zeros"}
    twin = type(layer).from_config(config)
    twin.build(layer.input.shape)
    twin.kernel.assign(ops.cast(kernel, "float32"))
    return twin


def _gradients(twin: keras.Layer, x: Any, upstream: Any) -> list[Any]:
    return layer_gradients(twin, ops.cast(x, twin.compute_dtype), ops.cast(upstream, twin.compute_dtype))


def _relative_error(in_bf16: Any, in_float32: Any) -> float:
    """‖g16 - g32‖ / ‖g32‖; unneeded gradients are None in bf16 and 0 in float32, and have no error."""
    size = float(ops.sum(ops.square(in_float32)))
    if in_bf16 is None:
        return 0.0 if size == 0 else float("inf")
    error = float(ops.sum(ops.square(ops.cast(in_bf16, "float32") - in_float32)))
    return float(np.sqrt(error / (size or 1)))
