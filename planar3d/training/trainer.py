"""The network for training: the same graph, variables and gradients, computed faster."""

from typing import Any, NamedTuple

import keras
from keras import layers, tree

from planar3d.graph.keras_graph import applied_again, name_of, nodes_of
from planar3d.training.backends import on_gpu


class _Part(NamedTuple):
    """A tensor, and whether a gradient must pass through it because an earlier layer is trained."""

    tensor: keras.KerasTensor
    needed: bool


def trainer_of(network: keras.Model) -> keras.Model:
    """Build the twin of a network that trains its variables faster on a CPU with TensorFlow.

    Convolutions become `PartConvolution`s without the concatenations before them; other layers are unchanged. Results
    differ only by rounding. Freeze layers before, since gradients that only frozen layers would use are not computed.

    Args:
        network: a functional model; its layers and variables are shared, and its graph is unchanged.

    Returns:
        A model with the same inputs and outputs. `network` itself on a GPU and on other backends, which do not need it,
        and if a layer is applied more than once.
    """
    used = [id(node.operation) for node in nodes_of(network)]
    if keras.backend.backend() != "tensorflow" or on_gpu() or len(used) > len(set(used)):
        return network
    walk = _Walk(network)
    outputs = [walk.joined(tensor) for tensor in network.outputs]
    return keras.Model(network.input, tree.pack_sequence_as(network.output, outputs), name=f"{network.name}_trainer")


class _Walk:
    """The walk through a network's graph, from each tensor to the parts that represent it in the twin."""

    def __init__(self, network: keras.Model) -> None:
        self.parts: dict[int, list[_Part]] = {id(tensor): [_Part(tensor, False)] for tensor in network.inputs}
        self.joins: dict[int, keras.KerasTensor] = {}
        for node in nodes_of(network):
            self._pass(node)

    def joined(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        """The twin's tensor; parts of it are concatenated, once."""
        parts = self.parts[id(tensor)]
        if len(parts) == 1:
            return parts[0].tensor
        if id(tensor) not in self.joins:
            name = f"{name_of(tensor)}_joined"
            self.joins[id(tensor)] = layers.Concatenate(dtype=tensor.dtype, name=name)([p.tensor for p in parts])
        return self.joins[id(tensor)]

    def _pass(self, node: Any) -> None:
        from planar3d.training.part_layers import Kept, PartConvolution, is_replaceable

        layer, sources = node.operation, node.input_tensors
        parts = [part for source in sources for part in self.parts[id(source)]]
        needed = any(part.needed for part in parts) or bool(getattr(layer, "trainable_variables", ()))
        if type(layer) is layers.Concatenate and layer.axis in (-1, len(node.outputs[0].shape) - 1):
            self.parts[id(node.outputs[0])] = parts
            return
        if needed and is_replaceable(layer):
            channels = [part.tensor.shape[-1] for part in parts]
            twin = PartConvolution(layer, channels, [part.needed for part in parts])
            outputs = [twin([part.tensor for part in parts])]
        elif all(self.joined(source) is source for source in sources):
            outputs = node.outputs
        else:
            # Operations without state may be in any number of graphs; layers have one place.
            kept = Kept(layer) if isinstance(layer, layers.Layer) else layer
            outputs = applied_again(node, [self.joined(source) for source in sources], kept)
        for before, after in zip(node.outputs, outputs, strict=True):
            self.parts[id(before)] = [_Part(after, needed)]
