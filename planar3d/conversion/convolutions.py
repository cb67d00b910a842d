"""Convolutions in 3D: strides, padding, and the kernel mapped along depth."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers

from planar3d.conversion.acs import VARIANTS, ACSConv3D
from planar3d.conversion.channels import fitted
from planar3d.conversion.choices import KernelMapping
from planar3d.conversion.depthwise import computed_on_images
from planar3d.conversion.held_objects import has_weights, weight_objects
from planar3d.conversion.place import Place, Rule, Step, Taken, unchanged
from planar3d.errors import ConversionError
from planar3d.graph.keras_graph import pass_through

# Settings with the same name and meaning in 3D.
_SHARED = ("trainable", "padding", "use_bias", "activity_regularizer", "bias_regularizer", "bias_constraint")
# Weights are filled at once, so initialization is skipped; the 2D layer's own initializers are restored.
_ZEROS: dict[str, Any] = {"kernel_initializer": "zeros", "bias_initializer": "zeros"}

# Layers that leave values as they are when a network predicts.
_UNCHANGED = (
    layers.ActivityRegularization,
    layers.AlphaDropout,
    layers.Dropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.SpatialDropout2D,
)

Change = Callable[[np.ndarray], np.ndarray]


def convolution(layer: layers.Conv2D, place: Place) -> list[Step]:
    """Conv2D as Conv3D, or as an ACS convolution; its kernel is adapted to another number of input channels."""
    if layer.groups > 1 or place.channels in (None, layer.kernel.shape[2]):
        return _convolved(layer, place, "kernel", unchanged, layer.groups)
    return _convolved(layer, place, "kernel", partial(fitted, given=place.channels), 1, channels=place.channels)


def depthwise(layer: layers.DepthwiseConv2D, place: Place) -> list[Step]:
    """DepthwiseConv2D as a Conv3D with a group for each channel."""
    return _convolved(layer, place, "depthwise", _grouped, layer.kernel.shape[2])


def separable(layer: layers.SeparableConv2D, place: Place) -> list[Step]:
    """SeparableConv2D as a grouped Conv3D, `<name>_depthwise`, and a pointwise Conv3D, which keeps the name."""
    first = _convolved(layer, place, "depthwise", _grouped, layer.depthwise_kernel.shape[2], f"{layer.name}_depthwise")
    kernel = layer.pointwise_kernel
    pointwise = layers.Conv3D(
        layer.filters,
        1,
        name=layer.name,
        **_shared(layer) | {"padding": "valid"},
        **_objects(layer, "pointwise", tuple(kernel.shape), None, 0),
        **_ZEROS,
    )
    arrays = [Taken(kernel, partial(np.expand_dims, axis=0)), *_bias(layer)]
    return [*first, Step(pointwise, arrays, "planar", _initializers(layer, "pointwise"))]


def transposed(layer: layers.Conv2DTranspose, place: Place) -> list[Step]:
    """Conv2DTranspose as Conv3DTranspose.

    If depth is also multiplied, the kernel is repeated at the same number of taps, so that each slice is repeated.
    """
    if place.kernel.name in VARIANTS:
        raise ConversionError(
            f"{layer.name} ({type(layer).__name__}) cannot be mapped by {place.kernel.name!r}, which is only "
            f"for convolutions; give it another mapping, e.g. {{'{layer.name}': 'planar', '*': '{place.kernel.name}'}}."
        )
    inside, factor = place.layout.in_volume, place.factor
    if factor > 1:
        if layer.output_padding is not None:
            raise ConversionError(
                f"{layer.name} (Conv2DTranspose) has output_padding={layer.output_padding}, which has no equivalent "
                "along depth; keep depth there (depth_pooling='keep', or 1 at its level)."
            )
        mapping, taps = KernelMapping("repeat"), factor
    else:
        mapping, taps = place.kernel, place.kernel.taps(layer.kernel_size)
    padding = layer.output_padding
    made = layers.Conv3DTranspose(
        layer.filters,
        inside(layer.kernel_size, taps),
        inside(layer.strides, factor),
        output_padding=None if padding is None else inside(padding, 0),
        dilation_rate=inside(layer.dilation_rate, 1),
        name=layer.name,
        **_shared(layer),
        **_objects(layer, "kernel", tuple(layer.kernel.shape), None, place.layout.axis),
        **_ZEROS,
    )
    kernel = Taken(layer.kernel, _mapped(unchanged, place, taps, mapping))
    steps = [Step(made, [kernel, *_bias(layer)], mapping.described(taps), _initializers(layer, "kernel"))]
    if layer.padding == "valid" and factor == 1 and taps > 1:
        ends = inside(((0, 0), (0, 0)), ((taps - 1) // 2, taps // 2))
        steps.append(Step(layers.Cropping3D(ends, name=f"{layer.name}_depth_crop", dtype=layer.dtype_policy)))
    return steps


def padded_twice(network: keras.Model) -> set[int]:
    """The ids of the nodes of convolutions that pad what a layer before has padded."""
    found: set[int] = set()

    def visit(name: str, node: Any, padded: list[bool]) -> list[bool]:
        layer = node.operation
        if type(layer) is layers.Conv2D and layer.padding == "same" and max(layer.kernel_size) > 1 and any(padded):
            found.add(id(node))
        pads = type(layer) is layers.ZeroPadding2D or (isinstance(layer, _UNCHANGED) and any(padded))
        return [pads] * len(node.outputs)

    pass_through(network, [False] * len(network.inputs), visit)
    return found


def _convolved(
    layer: Any, place: Place, kind: str, prepare: Change, groups: int, name: str = "", channels: int | None = None
) -> list[Step]:
    """A convolution with one of the layer's kernels, converted to (kh, kw, cin, cout).

    `name` is for the first half of a separable convolution, without bias and activation; `channels` is for a kernel
    adapted to other channels.
    """
    inside, taps = place.layout.in_volume, place.kernel.taps(layer.kernel_size)
    kernel = layer.depthwise_kernel if name else layer.kernel
    filters = kernel.shape[3] * (groups if kind == "depthwise" else 1)
    shared, bias = _shared(layer), _bias(layer)
    if name:
        shared |= {"use_bias": False, "activation": None, "activity_regularizer": None}
        bias = []
    is_acs = place.kernel.name in VARIANTS and taps > 1
    shape = (*kernel.shape[:2], channels or kernel.shape[2], kernel.shape[3])
    grouping = _grouped if kind == "depthwise" else None
    objects = _objects(layer, kind, shape, grouping, None if is_acs else place.layout.axis)
    initializers = _initializers(layer, kind)
    if is_acs:
        made = _acs(layer, place, filters, groups, name or layer.name, shared | objects)
        planes = [np.zeros(3, "float32")] if place.kernel.name == "acs_soft" else []
        return [Step(made, [Taken(kernel, prepare), *bias, *planes], place.kernel.name, initializers)]
    # With 'same' padding, strides shift windows back, and with them the tap at the slice itself; an unknown depth is
    # taken for a multiple of the stride.
    slices = place.depth or place.factor
    reached = (-(-slices // place.factor) - 1) * place.factor + taps
    center = (max(reached - slices, 0) if layer.padding == "same" else taps - 1) // 2
    conv = layers.Conv3D(
        filters,
        inside(layer.kernel_size, taps),
        inside(layer.strides, place.factor),
        dilation_rate=inside(layer.dilation_rate, 1),
        groups=groups,
        name=name or layer.name,
        **shared,
        **objects,
        **_ZEROS,
    )
    taken = Taken(kernel, _mapped(prepare, place, taps, place.kernel, center))
    steps = [Step(computed_on_images(conv), [taken, *bias], place.kernel.described(taps), initializers)]
    if layer.padding == "valid" and taps > 1:
        ends = inside(((0, 0), (0, 0)), ((taps - 1) // 2, taps // 2))
        padding = layers.ZeroPadding3D(ends, name=f"{name or layer.name}_depth_pad", dtype=layer.dtype_policy)
        steps.insert(0, Step(padding))
    return steps


def _acs(layer: Any, place: Place, filters: int, groups: int, name: str, config: dict[str, Any]) -> ACSConv3D:
    if place.kernel.depth not in (None, layer.kernel_size[0]) or len(set(layer.dilation_rate)) > 1:
        raise ConversionError(
            f"{layer.name} ({type(layer).__name__}): an ACS kernel is as deep as it has rows, here "
            f"{layer.kernel_size[0]}, and has one dilation for all axes; omit its depth, or use another mapping."
        )
    return ACSConv3D(
        filters,
        layer.kernel_size,
        place.layout.in_volume(layer.strides, place.factor),
        dilation_rate=layer.dilation_rate[0],
        groups=groups,
        axis=place.layout.axis,
        variant=place.kernel.name,
        name=name,
        **config,
        **_ZEROS,
    )


def _grouped(kernel: np.ndarray) -> np.ndarray:
    """A depthwise kernel (kh, kw, cin, multiplier) as a grouped one (kh, kw, 1, cin·multiplier)."""
    return kernel.reshape(*kernel.shape[:2], 1, -1)


def _mapped(prepare: Change, place: Place, taps: int, mapping: KernelMapping, center: int | None = None) -> Change:
    axis = place.layout.axis  # kept with the weight, unlike the place, which has the whole 2D network
    return lambda kernel: mapping.apply(prepare(kernel), taps, axis, center)


def _shared(layer: Any) -> dict[str, Any]:
    activation = None if has_weights(layer.activation) else layer.activation
    return {key: getattr(layer, key) for key in _SHARED} | {"activation": activation, "dtype": layer.dtype_policy}


def _objects(layer: Any, kind: str, shape: tuple[int, ...], grouping: Change | None, axis: int | None) -> dict:
    return {f"kernel_{part}": held for part, held in weight_objects(layer, kind, shape, grouping, axis).items()}


def _initializers(layer: Any, kind: str) -> dict[str, Any]:
    return {"kernel_initializer": getattr(layer, f"{kind}_initializer"), "bias_initializer": layer.bias_initializer}


def _bias(layer: Any) -> list[Taken]:
    return [Taken(layer.bias)] if layer.use_bias else []


RULES: dict[type, Rule] = {
    layers.Conv2D: convolution,
    layers.DepthwiseConv2D: depthwise,
    layers.SeparableConv2D: separable,
    layers.Conv2DTranspose: transposed,
}
