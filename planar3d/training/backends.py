"""What Keras leaves to its backend: whether there is a GPU, and the gradients of a layer by itself."""

from collections.abc import Callable
from typing import Any

import keras


def on_gpu() -> bool:
    """Whether the backend computes on a GPU."""
    return _BACKENDS[keras.backend.backend()][0]()


def layer_gradients(layer: keras.Layer, x: Any, upstream: Any) -> list[Any]:
    """Gradients of a layer's kernel and of its input, computed as a training step of the backend does.

    Args:
        layer: built, with a kernel.
        x: its input, in the layer's compute type.
        upstream: gradient of a loss with respect to its output, in the same type.

    Returns:
        Tensors of the kernel's and of the input's shape.
    """
    return _BACKENDS[keras.backend.backend()][1](layer, x, upstream)


def _tensorflow_on_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))


def _torch_on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _jax_on_gpu() -> bool:
    import jax

    return jax.default_backend() == "gpu"


def _tensorflow_gradients(layer: keras.Layer, x: Any, upstream: Any) -> list[Any]:
    import tensorflow as tf

    def differentiate(x: Any, upstream: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return tape.gradient(y, [layer.kernel.value, x], output_gradients=upstream)

    return tf.function(differentiate).get_concrete_function(x, upstream)(x, upstream)


def _torch_gradients(layer: keras.Layer, x: Any, upstream: Any) -> list[Any]:
    import torch

    x = x.detach().requires_grad_()
    return list(torch.autograd.grad(layer(x), [layer.kernel.value, x], upstream))


def _jax_gradients(layer: keras.Layer, x: Any, upstream: Any) -> list[Any]:
    import jax

    @jax.jit
    def differentiate(kernel: Any, x: Any, upstream: Any) -> Any:
        def call(kernel: Any, x: Any) -> Any:
            # Not layer.stateless_call, which leaves the weights in float32.
            with keras.StatelessScope([(layer.kernel, kernel)]):
                return layer(x)

        return jax.vjp(call, kernel, x)[1](upstream)

    return list(differentiate(layer.kernel.value, x, upstream))


_BACKENDS: dict[str, tuple[Callable[[], bool], Callable[..., list[Any]]]] = {
    "tensorflow": (_tensorflow_on_gpu, _tensorflow_gradients),
    "torch": (_torch_on_gpu, _torch_gradients),
    "jax": (_jax_on_gpu, _jax_gradients),
}
