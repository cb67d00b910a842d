"""The walk over a 2D network's graph that builds the 3D one: node by node, each layer made once and filled."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import keras
from keras import tree

from planar3d.conversion import channels, operations
from planar3d.conversion.choices import KernelMapping, MappingChoice, mapping_of
from planar3d.conversion.layer_rules import RULES
from planar3d.conversion.layout import Layout
from planar3d.conversion.place import Place, Step, values
from planar3d.conversion.resolution import as_graph, is_graph, nodes_of
from planar3d.conversion.transfer_report import Shapes, TransferredLayer
from planar3d.errors import ConversionError

Counterparts = Mapping[type, Callable[[Any], keras.Layer]]


@dataclass(frozen=True)
class GraphWalk:
    """The choices of a conversion, and what it has made so far.

    Attributes:
        layout, whole_volume, mapping, default, factors, counterparts: as `convert` was asked.
        made: the steps that a 2D layer or nested network became, by its id.
        rows: of the report.
    """

    layout: Layout
    whole_volume: bool
    mapping: MappingChoice
    default: KernelMapping
    factors: Mapping[int, int]
    counterparts: Counterparts
    made: dict[int, list[Step]] = field(default_factory=dict)
    rows: list[TransferredLayer] = field(default_factory=list)

    def network(self, network: keras.Model, inputs: Sequence[Any], name: str, prefix: str = "") -> keras.Model:
        """The 3D counterpart of a functional network, from 3D inputs on.

        Args:
            network: 2D.
            inputs: for each of its inputs one in 3D.
            name: of the counterpart.
            prefix: of layers' names in errors and in the report: the networks around this one.
        """
        known = {id(flat): volume for flat, volume in zip(network.inputs, inputs, strict=True)}
        for node in nodes_of(network):
            flats = node.input_tensors
            if all(id(flat) in known for flat in flats):
                self._fit_channels(node, known)
                outputs = self._applied(node, [known[id(flat)] for flat in flats], known, prefix)
                known.update(zip(map(id, node.outputs), outputs, strict=True))
        return keras.Model(
            tree.pack_sequence_as(network.input, list(inputs)),
            tree.pack_sequence_as(network.output, [known[id(flat)] for flat in network.outputs]),
            name=name,
        )

    def _applied(self, node: Any, volumes: Sequence[Any], known: Mapping[int, Any], prefix: str) -> list[Any]:
        """What the counterpart of a node gives."""
        operation, where = node.operation, f"{prefix}{node.operation.name} ({type(node.operation).__name__})"
        try:
            place = self._place(node, volumes)
            args, kwargs = node.arguments.fill_in(known)
            if not isinstance(operation, keras.Layer):
                args, kwargs = operations.arguments_in_3d(operation, args, kwargs, place)
            steps = self.made.get(id(operation)) or self._steps(operation, place, volumes, prefix)
            first, *others = steps
            result = first.operation(*args, **kwargs)
            for step in others:
                result = step.operation(result)
            if id(operation) not in self.made:
                self.made[id(operation)] = steps
                if not is_graph(operation):
                    self._fill(operation, steps, prefix)
            outputs = tree.flatten(result)
            self._check(node, volumes, outputs)
        except ConversionError:
            raise
        except (TypeError, ValueError) as error:
            raise ConversionError(f"{where} has no counterpart in 3D: {_reason(error)}.") from error
        return outputs

    def _steps(self, operation: Any, place: Place, volumes: Sequence[Any], prefix: str) -> list[Step]:
        """The rule's steps for a layer, or the counterpart of a nested network."""
        where = f"{prefix}{operation.name} ({type(operation).__name__})"
        if isinstance(operation, keras.Model):
            inner = as_graph(operation)
            inputs = [
                input_in_3d(flat, self.layout, None, len(volume.shape) > len(flat.shape), volume.shape[-1])
                for flat, volume in zip(inner.inputs, volumes, strict=True)
            ]
            return [Step(self.network(inner, inputs, operation.name, f"{prefix}{operation.name}/"))]
        if getattr(operation, "data_format", "channels_last") != "channels_last":
            raise ConversionError(f"{where} has data_format 'channels_first'; build the network with channels last.")
        if isinstance(operation, keras.layers.Lambda):
            raise ConversionError(
                f"{where} is a Python function, of which is not known what it does in 3D; replace it by layers or by "
                "keras.ops."
            )
        if type(operation) in self.counterparts:
            return [Step(self.counterparts[type(operation)](operation), _arrays(operation), "copied")]
        rule = RULES.get(type(operation)) or operations.rule_of(operation)
        if rule is None:
            raise ConversionError(
                f"{where} has no known counterpart in 3D. Give one, counterparts={{{type(operation).__name__}: "
                "function from the 2D layer to a 3D layer}, or leave the layer out."
            )
        return rule(operation, place)

    def _place(self, node: Any, volumes: Sequence[Any]) -> Place:
        operation, flats = node.operation, node.input_tensors
        deep = [len(volume.shape) > len(flat.shape) for flat, volume in zip(flats, volumes, strict=True)]
        if len(set(deep)) > 1 and not is_graph(operation):
            raise ValueError(
                "it joins values of each slice with values of the whole volume; convert with global_pooling='volume'"
            )
        position = self.layout.position(len(flats[0].shape))
        return Place(
            flats,
            node.outputs,
            volumes[0].shape[position] if deep[0] else None,
            deep[0],
            self.layout,
            self.whole_volume,
            mapping_of(operation, self.mapping, self.default),
            self.factors.get(id(operation), 1),
            volumes[0].shape[-1],
        )

    def _fit_channels(self, node: Any, known: dict[int, Any]) -> None:
        """Make the 2D network's channels where a layer needs them and the 3D network has others."""
        operation = node.operation
        if is_graph(operation) or channels.takes_any(operation) or channels.takes_mapped(operation):
            return
        for flat in node.input_tensors:
            given, wanted = known[id(flat)].shape[-1], flat.shape[-1]
            if given != wanted:
                name = f"{flat._keras_history.operation.name}_channels"
                step = channels.spreading(given, wanted, name, getattr(operation, "dtype_policy", None))
                known[id(flat)] = step.operation(known[id(flat)])
                self._fill(None, [step], "")

    def _fill(self, source: Any, steps: Sequence[Step], prefix: str) -> None:
        """Give layers their weights, and the report their rows."""
        for step in steps:
            weights = getattr(step.operation, "weights", [])
            if step.arrays is not None:
                shapes = [tuple(array.shape) for array in step.arrays]
                if shapes != [tuple(weight.shape) for weight in weights]:
                    raise ValueError(
                        f"weights of {shapes} do not fit those of {step.operation.name}, {_shapes(weights)}"
                    )
                for weight, array in zip(weights, step.arrays, strict=True):
                    weight.assign(array)
                if hasattr(step.operation, "finalize_state"):
                    step.operation.finalize_state()  # Normalization reads its weights here alone
            count = sum(prod(weight.shape) for weight in weights)
            self.rows.append(
                TransferredLayer(
                    f"{prefix}{source.name}" if source is not None else "",
                    type(source).__name__ if source is not None else "",
                    f"{prefix}{step.operation.name}",
                    type(step.operation).__name__,
                    _shapes(getattr(source, "weights", [])),
                    _shapes(weights),
                    step.mapping,
                    count,
                    count if source is not None and step.arrays is not None else 0,
                )
            )

    def _check(self, node: Any, volumes: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Raise a `ValueError` unless the plane is as in 2D: a wrong counterpart must not pass for a right one."""
        pairs = zip(node.input_tensors, volumes, strict=True)
        other_channels = any(flat.shape[-1] != volume.shape[-1] for flat, volume in pairs)
        for flat, volume in zip(node.outputs, outputs, strict=True):
            expected = list(flat.shape)
            if len(volume.shape) > len(flat.shape):
                expected = list(self.layout.with_depth(flat.shape, None))
            if other_channels and volume.shape:
                expected[-1] = None
            agree = len(expected) == len(volume.shape) and all(
                wanted in (found, None) or found is None for wanted, found in zip(expected, volume.shape, strict=True)
            )
            if not agree:
                raise ValueError(f"it gives {tuple(volume.shape)}, where {tuple(expected)} is expected")


def input_in_3d(flat: Any, layout: Layout, depth: int | None, deep: bool, channels: int | None) -> Any:
    """The input of a 3D network for that of a 2D one: with depth if it is deep, and with other channels if given."""
    shape = (*flat.shape[:-1], channels or flat.shape[-1]) if deep else tuple(flat.shape)
    shape = layout.with_depth(shape, depth) if deep else shape
    return keras.Input(shape[1:], batch_size=shape[0], name=flat._keras_history.operation.name, dtype=flat.dtype)


def _reason(error: Exception) -> str:
    """The line of an error that tells what is wrong; Keras writes where it was before it, and colours it."""
    lines = [re.sub(r"\x1b\[\d*m", "", line).strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("Exception encountered")]
    return told[0].rstrip(".") if told else type(error).__name__


def _arrays(layer: Any) -> list[Any]:
    return [values(weight) for weight in layer.weights]


def _shapes(weights: Sequence[Any]) -> Shapes:
    return tuple(tuple(weight.shape) for weight in weights)
