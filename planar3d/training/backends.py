"""Backend-specific functions: detection of a GPU, determinism, and the gradients of a single layer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import reduce
from importlib import import_module
from typing import Any

import keras
from keras import layers

from planar3d.graph.keras_graph import layers_within, shapes_taken
from planar3d.graph.reach import reads_beyond_image, reads_beyond_slice

_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D, layers.SeparableConv1D, layers.SeparableConv2D)
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D, *_DEPTHWISE, *_TRANSPOSED)


def on_gpu() -> bool:
    """Whether the backend computes on a GPU."""
    backend = keras.backend.backend()
    return backend in _ON_GPU and _ON_GPU[backend](import_module(backend))


def trains(backend: str) -> bool:
    """Whether Keras trains on a backend."""
    return backend in _GRADIENTS


def make_deterministic() -> None:
    """Enable deterministic results, which exact resume needs.

    On a CPU, a step is repeated bit for bit with a given number of threads. TensorFlow's determinism mode would double
    the time of a step, and does not fix the order of sums, so it is used only on GPUs. JAX and torch on a GPU have no
    such mode here: a resumed run may differ by rounding.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if on_gpu():
            tf.config.experimental.enable_op_determinism()
        with suppress(ImportError, AttributeError):  # another TensorFlow may have moved its private parts
            _add_in_order(tf)


def _add_in_order(tf: Any) -> None:
    """Add three and more tensors in the order of the program.

    TensorFlow's `AddN` starts with the first term whose memory it can reuse, so its rounding depends on which other
    operations have ended. It adds the gradients of a tensor with several uses, and Grappler replaces successive
    additions by it.
    """
    from tensorflow.python import pywrap_tfe
    from tensorflow.python.eager import backprop

    def add(terms: Sequence[Any]) -> Any:
        dense = all(isinstance(term, tf.Tensor) for term in terms)
        return reduce(tf.add, terms) if dense else backprop._aggregate_grads(terms)

    pywrap_tfe.TFE_Py_RegisterVSpace(backprop._default_vspace._replace(aggregate_fn=add))
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


def as_written(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A prediction without Grappler's changes of arithmetic, which differ between a network and a part of it."""
    if keras.backend.backend() != "tensorflow":
        return compute
    import tensorflow as tf

    try:
        from tensorflow.python.eager.context import FunctionCallOptions, context
    except ImportError:  # another TensorFlow may have moved its private parts
        return compute

    def computed(batch: Any) -> Any:
        # Those of this thread: tf.config.optimizer has those of all threads, of which others may be computing.
        before = context().function_call_options
        config = tf.compat.v1.ConfigProto.FromString(before.config_proto_serialized)
        rewriting = config.graph_options.rewrite_options
        rewriting.arithmetic_optimization = rewriting.constant_folding = rewriting.OFF
        context().function_call_options = FunctionCallOptions(before.executor_type, config)
        try:
            return compute(batch)
        finally:
            context().function_call_options = before

    return computed


@contextmanager
def forgetting_gradients() -> Iterator[None]:
    """Remove the gradients that TensorFlow lists in the block for good, and with them networks and optimizers of folds.

    They are those of `tf.custom_gradient` in graphs, which only tracing needs; Keras' optimizers have one too.
    """
    known: dict[str, Any] = {}
    if keras.backend.backend() == "tensorflow":
        with suppress(ImportError, AttributeError):  # another TensorFlow may have moved its private parts
            from tensorflow.python.framework import ops

            known = ops.gradient_registry._registry
    before = set(known)
    try:
        yield
    finally:
        for name in known.keys() - before:
            if name.startswith("CustomGradient-"):
                del known[name]


def keeping_float32(network: keras.Model) -> keras.Model:
    """A network in 16 bits whose layers are in float32 where a CPU reads beyond their input or output in bf16."""
    for layer in layers_within(network):
        if not isinstance(layer, _CONVOLUTIONS) or layer.compute_dtype != "bfloat16":
            continue
        for shape in shapes_taken(layer):
            slid_over = layer.compute_output_shape(shape) if isinstance(layer, _TRANSPOSED) else shape
            if reads_beyond_slice(layer, slid_over) or reads_beyond_image(layer, slid_over):
                layer.dtype_policy = "float32"
    return network


def layer_gradients(layer: keras.Layer, x: Any, upstream: Any) -> list[Any]:
    """Gradients of a layer's kernel and input, computed as in a training step of the backend.

    Args:
        layer: built, with a kernel.
        x: its input, in the layer's compute type.
        upstream: gradient of a loss with respect to its output, in the same type.
    """
    return _GRADIENTS[keras.backend.backend()](layer, x, upstream)


def _tensorflow_gradients(layer: keras.Layer, x: Any, upstream: Any) -> list[Any]:
    import tensorflow as tf

    from planar3d.training.convolutions import in_graph

    def differentiate(x: Any, upstream: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return tape.gradient(y, [layer.kernel.value, x], output_gradients=upstream)

    return in_graph(differentiate, x, upstream)


def _torch_gradients(layer: keras.Layer, x: Any, upstream: Any) -> list[Any]:
    import torch

    x = x.detach().requires_grad_()
    return list(torch.autograd.grad(layer(x), [layer.kernel.value, x], upstream))


def _jax_gradients(layer: keras.Layer, x: Any, upstream: Any) -> list[Any]:
    import jax

    @jax.jit
    def differentiate(kernel: Any, x: Any, upstream: Any) -> Any:
        def call(kernel: Any, x: Any) -> Any:
            # Not layer.stateless_call, which keeps the weights in float32.
            with keras.StatelessScope([(layer.kernel, kernel)]):
                return layer(x)

        return jax.vjp(call, kernel, x)[1](upstream)

    return list(differentiate(layer.kernel.value, x, upstream))


_ON_GPU: dict[str, Callable[[Any], bool]] = {
    "tensorflow": lambda tf: bool(tf.config.get_visible_devices("GPU")),
    "torch": lambda torch: torch.cuda.is_available(),
    "jax": lambda jax: jax.default_backend() == "gpu",
}
_GRADIENTS: dict[str, Callable[..., list[Any]]] = {
    "tensorflow": _tensorflow_gradients,
    "torch": _torch_gradients,
    "jax": _jax_gradients,
}
