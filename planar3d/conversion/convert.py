"""Conversion of any functional 2D Keras network to 3D, with mapped weights."""

from collections import Counter
from collections.abc import Mapping, Sequence
from reprlib import repr as repr_of
from typing import Any

import keras

from planar3d.conversion.choices import MappingChoice, mappings_of
from planar3d.conversion.convolutions import RULES as CONVOLUTIONS, misread_after_padding
from planar3d.conversion.graph_walk import Counterparts, GraphWalk, input_in_3d
from planar3d.conversion.place import DepthAxis
from planar3d.conversion.resolution import depth_factors, uses_in
from planar3d.conversion.transfer_report import TransferReport
from planar3d.errors import ConversionError
from planar3d.graph.keras_graph import as_graph, check_channels_last
from planar3d.sections import check_choice, whole
from planar3d.transfer.mappings import Tap, check_axis


def convert(
    model2d: keras.Model,
    mapping: MappingChoice = "planar",
    depth: int | None = None,
    depth_pooling: str | Sequence[int] = "keep",
    global_pooling: str = "slice",
    in_channels: int | None = None,
    kernel_depth: int | None = None,
    axis: int = 0,
    name: str | None = None,
    *,
    tap: Tap = "center",
    alpha: Sequence[float] | None = None,
    counterparts: Counterparts | None = None,
    input_tensor: keras.KerasTensor | None = None,
) -> keras.Model:
    """Turn a 2D network into its 3D counterpart: layers are replaced, weights mapped, and names kept.

    >>> import keras, planar3d
    >>> densenet = keras.applications.DenseNet121(weights=None, input_shape=(64, 64, 3), include_top=False)
    >>> planar3d.convert(densenet).output_shape
    (None, None, 2, 2, 1024)

    Args:
        model2d: a functional or sequential model of images (batch, rows, cols, channels); models may be nested in it.
        mapping: how kernels are mapped: `"planar"`, `"zero"`, `"average"`, `"scale"` or `"repeat"` as in `map_kernel`;
            `"acs"`, `"acs_mean"` or `"acs_soft"` as in `ACSConv3D`; a dictionary of these by layer name or pattern,
            also nested ones as `model/layer` (planar where none matches); or a function of the layer.
        depth: slices of a volume; None for any number.
        depth_pooling: effect of strides and poolings on depth: `"keep"` leaves it unchanged, `"match"` divides it as
            rows are divided, a list gives a factor for each level at which rows are reduced, finest first.
        global_pooling: `"slice"` pools each slice separately, which preserves squeeze-and-excitation, and a vector
            (batch, channels) becomes one vector for each slice; `"volume"` also pools over depth.
        in_channels: input channels of the 3D network; None keeps those of the 2D network. For 1 the first convolution's
            kernels are summed over the channels; for other numbers they are scaled, so that identical channels give
            the output of a grey image.
        kernel_depth: taps of kernels larger than 1×1 with a mapping by name; None for their number of rows. Planar
            kernels are one slice deep, ACS kernels as deep as they have rows.
        axis: position of depth: 0 before rows, 1 between rows and columns, 2 after columns.
        name: name of the 3D network; default: the 2D network's name with `_3d`.
        tap, alpha: for the mappings `"zero"` and `"scale"`, as in `map_kernel`.
        counterparts: for custom layers, by type: a function from the 2D layer to a 3D layer with the same weights.
        input_tensor: output of a 3D network, (batch, depth, rows, cols, channels), from which the converted network
            continues; its depth and channels are used.

    Returns:
        A functional model from (batch, depth, rows, cols, channels), with axes in the order given by `axis`, or from
        the inputs of `input_tensor`. No weights are shared with `model2d`; functions, regularizers and constraints are
        the same objects, or are adapted to the axes of 3D kernels. The attribute `transfer_report` lists what was
        mapped.

    Raises:
        ConversionError: a layer has no 3D counterpart (it is named with its type), or an argument does not fit, matches
            no layer or has no effect.

    Source: Kolarik 2020, section 3.3 and eq. 3 (planar); `map_kernel` has the sources of the other mappings.
    """
    check_channels_last()
    network = as_graph(model2d)
    for argument, number in (("depth", depth), ("in_channels", in_channels), ("kernel_depth", kernel_depth)):
        if number is not None:
            whole(argument, number, 1, ConversionError)
    check_choice("global_pooling", global_pooling, ("slice", "volume"), ConversionError)
    check_axis(axis, ConversionError)
    if not isinstance(name, str | None) or "/" in (name or ""):
        raise _wrong("name", name, "a string without / is needed")
    if counterparts is None:
        counterparts = {}
    if not isinstance(counterparts, Mapping) or not all(map(callable, counterparts.values())):
        needed = "a dictionary of functions by the type of the 2D layer is needed"
        raise _wrong("counterparts", counterparts, needed)
    if input_tensor is not None and not (isinstance(input_tensor, keras.KerasTensor) and len(input_tensor.shape) == 5):
        needed = "a tensor of a 3D network, (batch, depth, rows, cols, channels), is needed"
        raise _wrong("input_tensor", input_tensor, needed)
    images = [tensor for tensor in network.inputs if len(tensor.shape) == 4]
    crowded = (in_channels and len(images) > 1) or (input_tensor is not None and len(network.inputs) > 1)
    if not images or crowded:
        raise ConversionError(
            f"{network.name} takes {[tuple(t.shape) for t in network.inputs]}; an image (batch, rows, cols, channels) "
            "is needed, and only one if in_channels is given, nothing else if input_tensor is given."
        )
    if input_tensor is not None and (depth or in_channels):
        raise ConversionError("input_tensor has its own depth and channels; omit depth and in_channels.")
    depth_axis, uses = DepthAxis(axis), list(uses_in(network))
    kernels = {n: each for n, each in uses if type(each) in CONVOLUTIONS and type(each) not in counterparts}
    _check_types(counterparts, {type(operation) for _, operation in uses})
    times = Counter(id(operation) for _, operation in uses)
    factors, reduced = depth_factors(network, depth_pooling)
    walk = GraphWalk(
        depth_axis=depth_axis,
        whole_volume=global_pooling == "volume",
        mappings=mappings_of(kernels, mapping, {"depth": kernel_depth, "tap": tap, "alpha": alpha}),
        factors=factors,
        reduced=reduced,
        counterparts=counterparts,
        shared={used for used, count in times.items() if count > 1},
        misread_after_padding=misread_after_padding(network),
    )
    if input_tensor is None:
        inputs = [
            input_in_3d(tensor, depth_axis, depth, len(tensor.shape) == 4, in_channels) for tensor in network.inputs
        ]
    else:
        flat = depth_axis.with_depth(images[0].shape, None)[1:4]
        if any(a != b for a, b in zip(flat, input_tensor.shape[1:4], strict=True) if None not in (a, b)):
            raise ConversionError(
                f"input_tensor has the shape {tuple(input_tensor.shape)}, but the images of {network.name} have the "
                f"shape {tuple(images[0].shape)}; build it for this size, or for any (None)."
            )
        inputs = [input_tensor]
    try:
        model3d = walk.network(network, inputs, name or f"{network.name}_3d")
    except ValueError as error:
        if input_tensor is None:
            raise
        raise ConversionError(
            f"{network.name} cannot continue from input_tensor: {error} Rename the layer in one of the two networks."
        ) from error
    model3d.transfer_report = TransferReport(network.name, model3d.name, tuple(walk.rows))
    return model3d


def _check_types(counterparts: Counterparts, types: set[type]) -> None:
    for kind in counterparts:
        if kind not in types:
            raise ConversionError(
                f"counterparts: the network has no layer of exactly the type {getattr(kind, '__name__', repr(kind))} "
                f"(subclasses do not count); it has: {', '.join(sorted(each.__name__ for each in types))}."
            )


def _wrong(argument: str, value: Any, needed: str) -> ConversionError:
    return ConversionError(f"{argument}={repr_of(value)}: {needed}.")
