"""The walk over a 2D network's graph that builds the 3D network node by node."""

from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import keras
from keras import tree

from planar3d.conversion import channels, convolutions, operations
from planar3d.conversion.choices import PLANAR, KernelMapping
from planar3d.conversion.held_objects import check_activation, has_weights
from planar3d.conversion.layer_rules import MERGES, RULES
from planar3d.conversion.place import DepthAxis, Place, Step, Taken, fill, is_same, tell_apart
from planar3d.conversion.refusals import reason, refusal
from planar3d.conversion.transfer_report import TransferredLayer
from planar3d.errors import ConversionError
from planar3d.graph.keras_graph import arguments_with, as_graph, in_order, is_graph, name_of, nodes_of, operation_of

Counterparts = Mapping[type, Callable[[Any], keras.Layer]]


@dataclass(frozen=True)
class GraphWalk:
    """The settings of a conversion, see `convert`, and its results so far."""

    depth_axis: DepthAxis
    whole_volume: bool
    mappings: Mapping[str, KernelMapping]  # by layer, nested ones as `model/layer`
    factors: Mapping[int, int]  # see `depth_factors`, by ids of nodes; 1 for others
    reduced: Container[int]
    counterparts: Counterparts
    shared: Container[int]  # ids of the layers used in several places
    misread_after_padding: Container[int]  # ids of nodes
    # The 3D steps of a 2D layer or nested network, by its id; for a layer without weights they may differ between
    # places.
    made: defaultdict[int, list[list[Step]]] = field(default_factory=lambda: defaultdict(list))
    rows: list[TransferredLayer] = field(default_factory=list)  # of the report

    def network(self, network: keras.Model, inputs: Sequence[Any], name: str, prefix: str = "") -> keras.Model:
        """The 3D counterpart of a functional network, for 3D inputs or tensors of a 3D network.

        `prefix` are the networks around this one, before names of layers in errors and in the report.
        """
        known = {id(flat): volume for flat, volume in zip(network.inputs, inputs, strict=True)}
        names = {operation.name for operation in network.operations}
        for node in nodes_of(network):
            self._fit_channels(node, known, names)
            self._part_paddings(node, known, names)
            outputs = self._applied(node, [known[id(flat)] for flat in node.input_tensors], prefix, names)
            known.update(zip(map(id, node.outputs), outputs, strict=True))
        sources = [source for volume in inputs for source in keras.utils.get_source_inputs(volume)]
        entry = network.input if len(sources) == len(network.inputs) else sources  # a tensor may have several
        return keras.Model(
            tree.pack_sequence_as(entry, sources),
            tree.pack_sequence_as(network.output, [known[id(flat)] for flat in network.outputs]),
            name=name,
        )

    def _applied(self, node: Any, volumes: Sequence[Any], prefix: str, names: set[str]) -> list[Any]:
        operation = node.operation
        try:
            volumes = self._of_one_rank(node, volumes, names)
            place = self._place(node, volumes, prefix)
            args, kwargs = operations.arguments_in_3d(operation, *arguments_with(node, volumes), place)
            taken = in_order(node, volumes) if is_graph(operation) else volumes
            if is_graph(operation):  # which may be called with a dictionary
                args = (tree.pack_sequence_as(as_graph(operation).input, taken), *args[1:])
            steps, is_new = self._steps_at(operation, place, taken, prefix)
            if is_new:
                for step in steps:
                    tell_apart(names, step.operation, operation, again=bool(self.made[id(operation)]))
            apply, *others = (step.operation for step in steps)
            accepted = signature(apply.call).parameters  # Keras records training, and an absent mask, which few take
            kwargs = {k: held for k, held in kwargs.items() if k in accepted or not (held is None or k == "training")}
            if others and type(apply) is type(before := operation_of(volumes[0])) is keras.layers.ZeroPadding3D:
                apply, args = convolutions.padded_once(before, apply), (before.input,)
                tell_apart(names, apply)
            result = apply(*args, **kwargs)
            for other in others:
                result = tree.map_structure(other, result)
            if is_new:
                self.made[id(operation)].append(steps)
                if not is_graph(operation):
                    self._fill(steps, operation, prefix)
            outputs = tree.flatten(result)
            self._check(node, volumes, outputs)
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            where = f"{prefix}{operation.name} ({type(operation).__name__})"
            raise ConversionError(f"{where} has no counterpart in 3D: {reason(error)}.") from error
        return outputs

    def _of_one_rank(self, node: Any, volumes: Sequence[Any], names: set[str]) -> list[Any]:
        """The volumes that a layer merges; one of fewer axes with the axes that Keras adds to its 2D tensor."""
        flats, made, name = node.input_tensors, list(volumes), f"{node.operation.name}_axes"
        rank = max(len(flat.shape) for flat in flats)
        deep = any(len(volume.shape) > len(flat.shape) for flat, volume in zip(flats, made, strict=True))
        for number, flat in enumerate(flats):
            if deep and len(flat.shape) < rank and type(node.operation) in MERGES:
                for step in operations.of_rank(rank, flat, made[number], self.depth_axis, name):
                    tell_apart(names, step.operation)
                    made[number] = step.operation(made[number])
        return made

    def _steps_at(self, operation: Any, place: Place, volumes: Sequence[Any], prefix: str) -> tuple[list[Step], bool]:
        """The steps of a layer, and whether they are new: not those of an earlier place, which are right for this one.

        A `ValueError` if a layer with weights, or a nested network, needs other steps here.
        """
        earlier = self.made[id(operation)]
        if earlier and type(operation) in self.counterparts:
            return earlier[0], False
        if earlier and is_graph(operation):
            if [len(t.shape) for t in earlier[0][0].operation.inputs] == [len(v.shape) for v in volumes]:
                return earlier[0], False
        else:
            steps = self._steps(operation, place, volumes, prefix)
            for made in earlier:
                if is_same(made, steps):
                    return made, False
        if earlier and (is_graph(operation) or operation.weights):
            raise ValueError(
                "it is used in several places and would differ between them, e.g. because one takes slices and another "
                "the whole volume. Make a layer for each place, or convert with global_pooling='volume'"
            )
        return steps, True

    def _steps(self, operation: Any, place: Place, volumes: Sequence[Any], prefix: str) -> list[Step]:
        """The rule's steps for a layer, or the counterpart of a nested network; a `ValueError` if there is none."""
        if isinstance(operation, keras.Model):
            inner = as_graph(operation)
            inputs = [
                input_in_3d(flat, self.depth_axis, None, len(volume.shape) > len(flat.shape), volume.shape[-1])
                for flat, volume in zip(inner.inputs, volumes, strict=True)
            ]
            return [Step(self.network(inner, inputs, operation.name, f"{prefix}{operation.name}/"))]
        if type(operation) in self.counterparts:
            made = self.counterparts[type(operation)](operation)
            if not isinstance(made, keras.Operation):
                raise ValueError(f"its function in counterparts returns {type(made).__name__}, not a layer")
            weights = getattr(operation, "weights", ())  # an operation of keras.ops has none
            return [Step(made, [Taken(weight) for weight in weights], "copied")]
        if getattr(operation, "data_format", "channels_last") != "channels_last":
            raise ValueError("its data_format is 'channels_first'; build the network with channels last")
        rule = RULES.get(type(operation)) or operations.rule_of(operation)
        if rule is None:
            raise ValueError(refusal(operation, place))
        activation: Any = getattr(operation, "activation", None)
        if not has_weights(activation):
            if place.has_depth and callable(activation):
                check_activation(operation, place.outputs[0].shape, self.depth_axis.position(place.rank_behind))
            return rule(operation, place)
        if not activation.built:
            raise ValueError(
                f"its activation {activation.name} ({type(activation).__name__}) has no weights yet. Call the network "
                "on an image once to create them"
            )
        steps = [*rule(operation, place), *self._steps(activation, place, volumes, prefix)]
        steps[-1].operation.activity_regularizer = operation.activity_regularizer
        return steps

    def _place(self, node: Any, volumes: Sequence[Any], prefix: str) -> Place:
        operation, flats = node.operation, node.input_tensors
        deep = [len(volume.shape) > len(flat.shape) for flat, volume in zip(flats, volumes, strict=True)]
        if len(set(deep)) > 1 and not is_graph(operation):
            raise ValueError(
                "it joins values of each slice with values of the whole volume; convert with global_pooling='volume'"
            )
        axes = [self.depth_axis.position(len(flat.shape)) for flat in flats]
        slices = {volume.shape[axis] for volume, axis in zip(volumes, axes, strict=True)} if all(deep) else set()
        if len(depths := sorted(slices - {None, 1})) > 1 and not is_graph(operation):
            raise ValueError(f"it joins {' and '.join(map(str, depths))} slices; choose a depth that all levels divide")
        return Place(
            inputs=flats,
            outputs=node.outputs,
            arguments=node.arguments.args,
            named=node.arguments.kwargs,
            depth=volumes[0].shape[axes[0]] if deep[0] else None,
            has_depth=deep[0],
            depth_axis=self.depth_axis,
            whole_volume=self.whole_volume,
            kernel=self.mappings.get(f"{prefix}{operation.name}", PLANAR),
            factor=self.factors.get(id(node), 1),
            is_reduced=id(node) in self.reduced,
            channels=volumes[0].shape[-1],
            precision=getattr(operation, "dtype_policy", flats[0].dtype),
        )

    def _fit_channels(self, node: Any, known: dict[int, Any], names: set[str]) -> None:
        """Restore the 2D network's channels for a layer that needs them."""
        operation = node.operation
        # A layer used in several places may have other channels in each, with the same weights.
        is_mapped = type(operation) is keras.layers.Conv2D and operation.groups == 1
        fits = (is_graph(operation) or is_mapped) and id(operation) not in self.shared
        if fits or channels.takes_any(operation):
            return
        for flat in node.input_tensors:
            given, wanted = known[id(flat)].shape[-1], flat.shape[-1]
            if given != wanted:
                name = f"{name_of(flat)}_channels"
                dtype = getattr(operation, "dtype_policy", flat.dtype if "float" in flat.dtype else None)
                step = channels.spreading(given, wanted, name, dtype)
                if "float" not in known[id(flat)].dtype:
                    known[id(flat)] = keras.ops.cast(known[id(flat)], step.operation.compute_dtype)
                self._insert(step, flat, known, names)

    def _fill(self, steps: Sequence[Step], source: Any, prefix: str) -> None:
        """Set the weights of a 2D layer's steps, or of a new layer, and report them."""
        for step in steps:
            fill(step, source, prefix)
            self.rows.append(TransferredLayer.of(source, step, prefix))

    def _part_paddings(self, node: Any, known: dict[int, Any], names: set[str]) -> None:
        """Put a layer between a padding and a convolution that TensorFlow's graphs by oneDNN would merge wrongly."""
        if id(node) in self.misread_after_padding:
            operation, (flat,) = node.operation, node.input_tensors
            step = Step(keras.layers.MaxPooling3D(1, name=f"{operation.name}_apart", dtype=operation.dtype_policy))
            self._insert(step, flat, known, names)

    def _insert(self, step: Step, flat: Any, known: dict[int, Any], names: set[str]) -> None:
        """Apply a new layer to the 3D tensor of a 2D tensor."""
        tell_apart(names, step.operation)
        known[id(flat)] = step.operation(known[id(flat)])
        self._fill([step], None, "")

    def _check(self, node: Any, volumes: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Raise a `ValueError` unless the plane has its 2D shape, to detect wrong counterparts."""
        pairs = zip(node.input_tensors, volumes, strict=True)
        other_channels = any(flat.shape[-1] != volume.shape[-1] for flat, volume in pairs)
        for flat, volume in zip(node.outputs, outputs, strict=True):
            expected = list(flat.shape)
            if len(volume.shape) > len(flat.shape):
                expected = list(self.depth_axis.with_depth(flat.shape, None))
            if other_channels and volume.shape:
                expected[-1] = None
            agree = len(expected) == len(volume.shape) and all(
                wanted in (found, None) or found is None for wanted, found in zip(expected, volume.shape, strict=True)
            )
            if not agree:
                raise ValueError(f"it gives {tuple(volume.shape)}, where {tuple(expected)} is expected")


def input_in_3d(flat: Any, depth_axis: DepthAxis, depth: int | None, deep: bool, channels: int | None) -> Any:
    """The 3D input for a 2D input: with depth for maps, and with other channels if given."""
    shape = (*flat.shape[:-1], channels or flat.shape[-1]) if deep else tuple(flat.shape)
    shape = depth_axis.with_depth(shape, depth) if deep else shape
    return keras.Input(shape[1:], batch_size=shape[0], name=name_of(flat), dtype=flat.dtype)
