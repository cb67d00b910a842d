"""The graph of a Keras network, and everything else without a public API: only this file uses the private API of Keras.

Tested with the Keras versions allowed in `pyproject.toml`; `tests/graph/test_keras_graph.py` shows changes.
"""

import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import tree
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from keras.src.backend import get_keras_mask as mask_of
from keras.src.models import Functional
from keras.src.ops.numpy import ExpandDims, Max, Mean, Moveaxis

from planar3d.errors import ConversionError

__all__ = ["CustomScaleLayer", "ExpandDims", "LayerScale", "Max", "Mean", "Moveaxis", "StochasticDepth", "mask_of"]

_BUILDING = threading.RLock()
_UNLISTED = {kind.__name__: kind for kind in (CustomScaleLayer, LayerScale, StochasticDepth)}

# Parts of a layer that a subclass overrides to compute something else: of all, of convolutions, merges, group
# normalization and upsampling.
_PARTS = ("__call__", "call", "convolution_op", "kernel", "_merge_function", "_apply_normalization", "_resize_volumes")

# Called at each use of an operation with its name, its node, and a value for each input tensor; returns a value for
# each output tensor.
Visit = Callable[[str, Any, list[Any]], Sequence[Any]]


def is_graph(operation: Any) -> bool:
    """Whether an operation is a network of layers, functional or sequential."""
    return isinstance(operation, keras.Sequential | Functional)


def check_model(network: Any) -> None:
    """Raise a `ConversionError` unless this is a network."""
    if not isinstance(network, keras.Model):
        raise ConversionError(
            f"A keras.Model is needed; got {type(network).__name__}. keras.saving.load_model opens a .keras file, and "
            "planar3d.load_network a model trained by planar3d."
        )


def check_channels_last() -> None:
    """Raise a `ConversionError` if Keras would build layers with their channels first."""
    if keras.config.image_data_format() != "channels_last":
        raise ConversionError(
            "Keras is set to image_data_format='channels_first', but the networks here have their channels last. Call "
            "keras.config.set_image_data_format('channels_last'), or change that line of Keras' keras.json."
        )


def as_graph(network: Any) -> keras.Model:
    """The functional network of a sequential one, or the network itself; a `ConversionError` if it has no graph."""
    check_model(network)
    if type(network).call not in (keras.Sequential.call, Functional.call):
        raise ConversionError(
            f"{network.name} ({type(network).__name__}) is not a functional model: its call is Python code without a "
            "graph. Build it with keras.Input and keras.Model(inputs, outputs)."
        )
    if isinstance(network, keras.Sequential):
        if network._functional is None:
            raise ConversionError(
                f"{network.name} is a Sequential model without a known input; call it on data or give it a keras.Input."
            )
        network._functional.name = network.name  # Keras gives it none
        return network._functional
    return network


def nodes_of(network: keras.Model) -> Iterator[Any]:
    """The uses of operations in a functional network, each after its inputs, without the network's inputs.

    Each has `operation`, `input_tensors`, `outputs`, and `arguments.args`, as recorded by Keras.
    """
    for depth in sorted(network._nodes_by_depth, reverse=True):
        yield from (node for node in network._nodes_by_depth[depth] if not node.is_input)


def arguments_with(node: Any, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and named arguments of a use, with values in place of its tensors."""
    args, kwargs = node.arguments.fill_in(dict(zip(map(id, node.input_tensors), values, strict=True)))
    # Of `layer(inputs=x)`: a replacement may call its first argument something else.
    return ((kwargs.pop("inputs"), *args), kwargs) if "inputs" in kwargs else (args, kwargs)


def applied(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """The outputs of an operation for tensors, as one node: what a layer's own `__call__` adds has nodes already."""
    call = keras.Layer.__call__ if isinstance(operation, keras.Layer) else type(operation).__call__
    return call(operation, *args, **kwargs)


def applied_again(node: Any, values: Sequence[Any], operation: Any = None) -> list[Any]:
    """The outputs of a node's operation, or of a replacement, for other tensors."""
    args, kwargs = arguments_with(node, values)
    return tree.flatten(applied(operation or node.operation, *args, **kwargs))


def shapes_taken(layer: keras.Layer) -> list[Any]:
    """The shape of a layer's first input in each place where it is used."""
    return [node.input_tensors[0].shape for node in layer._inbound_nodes]


def lambda_again(layer: keras.layers.Lambda, **changes: Any) -> keras.layers.Lambda:
    """A new Lambda layer of the same function, with changes to its name or type."""
    config = keras.Layer.get_config(layer) | changes
    return type(layer)(layer.function, layer._output_shape, layer.mask, layer.arguments, **config)


def pass_through(network: keras.Model, values: Sequence[Any], visit: Visit, prefix: str = "") -> list[Any]:
    """Pass a value for each input through a network and its nested networks, without changing their graphs.

    Each use of an operation is visited, in order; those within `model` are named `model/layer`.
    """
    network = as_graph(network)
    known = dict(zip(map(id, network.inputs), values, strict=True))
    for node in nodes_of(network):
        taken = [known[id(tensor)] for tensor in node.input_tensors]
        name = prefix + node.operation.name
        if is_graph(node.operation):
            given: Sequence[Any] = pass_through(node.operation, in_order(node, taken), visit, f"{name}/")
        else:
            given = visit(name, node, taken)
        known.update(zip(map(id, node.outputs), given, strict=True))
    return [known[id(tensor)] for tensor in network.outputs]


def in_order(node: Any, values: Sequence[Any]) -> list[Any]:
    """Values for the tensors that a nested network takes, in the order of its inputs, which may be called by name."""
    network, ((taken, *_), _) = as_graph(node.operation), arguments_with(node, range(len(values)))
    if isinstance(taken, dict) and not isinstance(network.input, dict):
        taken = [taken[tensor.name] for tensor in network.inputs]
    return [values[number] for number in tree.flatten(taken)]


def layers_applied_again(network: keras.Model, values: Sequence[Any]) -> list[Any]:
    """The outputs of a network for other tensors, by applying its layers again instead of nesting the network."""
    return pass_through(network, values, lambda name, node, taken: applied_again(node, taken))


def unnested(given: Any, outputs: Any, name: str) -> keras.Model:
    """A network of layers that were applied again; a `ConversionError` if nested networks gave them the same name."""
    try:
        return keras.Model(given, outputs, name=name)
    except ValueError as error:
        raise ConversionError(
            f"{name}: {error} Layers of nested networks need names of their own; set them before, as in "
            "network.get_layer('inner').get_layer('conv').name = 'inner_conv'."
        ) from error


def operation_of(tensor: keras.KerasTensor) -> Any:
    """The layer or operation of an output tensor."""
    return tensor._keras_history.operation


def name_of(tensor: keras.KerasTensor) -> str:
    """The name of the layer or operation of an output tensor."""
    return operation_of(tensor).name


def forget_uses(model: keras.Model) -> None:
    """Make layers forget that they were applied in a finished model, which they would keep as long as they live."""
    for node in nodes_of(model):
        node.operation._inbound_nodes.remove(node)
        for tensor in node.input_tensors:
            operation_of(tensor)._outbound_nodes.remove(node)


def layers_within(network: keras.Model, kind: type = keras.Layer) -> list[Any]:
    """The network and all its layers, including those nested in other layers, if they are of a kind."""
    return [layer for layer in network._flatten_layers() if isinstance(layer, kind)]


def kind_in_keras(operation: Any, known: Container[str]) -> str:
    """The name of an operation's first known kind, with the prefix `ops.` for keras.ops; "" for none.

    A subclass that overrides the computation has no kind.
    """
    for kind in type(operation).__mro__:
        name = f"ops.{kind.__name__}" if kind.__module__.startswith("keras.src.ops.") else kind.__name__
        if name in known and kind.__module__.startswith(("keras.", "planar3d.")):
            same = (getattr(type(operation), part, None) is getattr(kind, part, None) for part in _PARTS)
            return name if all(same) else ""
    return ""


def layer_type(kind: str) -> type | None:
    """Keras' class of layers of a name."""
    return getattr(keras.layers, kind, None) or _UNLISTED.get(kind)


def operation_kind(operation: Any) -> str:
    """The class name of an operation of keras.ops; empty for others."""
    return type(operation).__name__ if type(operation).__module__.startswith("keras.src.ops.") else ""


def with_logits(output: Any) -> list[Any]:
    """An output and, if Keras records it, the logits before the last activation, for cross-entropies."""
    logits = getattr(output, "_keras_logits", None)
    return [output] if logits is None else [output, logits]


def remembering_logits(tensors: Sequence[Any]) -> Any:
    """The output in a result of `with_logits`, or in values derived from it."""
    output, *logits = tensors
    if logits:
        output._keras_logits = logits[0]
    return output


@contextmanager
def calling(network: keras.Model, moments: Callable[..., Any], add_loss: Callable[[Any], None]) -> Iterator[None]:
    """Make layers call `add_loss(losses)`, and batch normalization `moments(inputs, axes)` for mean and variance."""
    layers = layers_within(network)
    for layer in layers:
        vars(layer)["add_loss"] = add_loss
        if isinstance(layer, keras.layers.BatchNormalization):
            vars(layer)["_moments"] = lambda inputs, mask, axes=layer._reduction_axes: moments(inputs, axes)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["add_loss"]
            vars(layer).pop("_moments", None)


@contextmanager
def without_random_weights() -> Iterator[None]:
    """Make layers that this thread builds start with zeros; for networks whose weights are loaded next.

    JAX compiles the random initialization of each shape of kernel, for up to a second.
    """
    kind, zeros, thread = keras.initializers.VarianceScaling, keras.initializers.Zeros(), threading.get_ident()

    def initialize(initializer: Any, shape: Sequence[int], dtype: Any = None) -> Any:
        return zeros(shape, dtype) if threading.get_ident() == thread else drawn(initializer, shape, dtype)

    with _BUILDING:
        drawn = kind.__call__
        kind.__call__ = initialize
        try:
            yield
        finally:
            kind.__call__ = drawn
