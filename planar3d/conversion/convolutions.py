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
from planar3d.conversion.held_objects import grouped, has_weights, weight_objects
from planar3d.conversion.place import Place, Rule, Step, Taken, unchanged
from planar3d.graph.keras_graph import pass_through

# Settings with the same name and meaning in 3D.
_SHARED = ("name", "trainable", "padding", "use_bias", "activity_regularizer", "bias_regularizer", "bias_constraint")
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
)

Change = Callable[[np.ndarray], np.ndarray]


def convolution(layer: Any, place: Place, kind: str = "kernel", name: str = "") -> list[Step]:
    """A convolution as Conv3D, or as an ACS convolution.

    Args:
        kind: `"kernel"`, which is adapted to other input channels, or `"depthwise"`, with a group for each channel.
        name: of the first half of a separable convolution, which has no bias and no activation.
    """
    axis, inside, taps = place.depth_axis.axis, place.depth_axis.in_volume, place.kernel.taps(layer.kernel_size)
    kernel = layer.depthwise_kernel if name else layer.kernel
    *window, channels, filters = kernel.shape
    prepare: Change = unchanged
    if kind == "depthwise":
        prepare, groups, outputs = grouped, channels, channels * filters
    else:
        groups, outputs = layer.groups, filters
        if groups == 1 and place.channels not in (None, channels):
            channels = place.channels
            prepare = partial(fitted, given=channels)
    is_acs = place.kernel.name in VARIANTS and taps > 1
    options = {
        "strides": inside(layer.strides, place.factor),
        "groups": groups,
        **_settings(layer, kind, (*window, channels, filters), None if is_acs else axis),
    }
    bias = _bias(layer)
    if name:
        options |= {"name": name, "use_bias": False, "activation": None, "activity_regularizer": None}
        bias = []
    initializers = _initializers(layer, kind)
    if is_acs:
        variant, dilation = place.kernel.name, layer.dilation_rate
        made = ACSConv3D(outputs, layer.kernel_size, dilation_rate=dilation, axis=axis, variant=variant, **options)
        planes = [np.zeros(3, "float32")] if variant == "acs_soft" else []
        return [Step(made, [Taken(kernel, prepare), *bias, *planes], variant, initializers)]
    # With 'same' padding, strides shift windows back, and with them the tap at the slice itself; an unknown depth is
    # taken for a multiple of the stride.
    slices = place.depth or place.factor
    reached = (-(-slices // place.factor) - 1) * place.factor + taps
    center = (max(reached - slices, 0) if layer.padding == "same" else taps - 1) // 2
    conv = layers.Conv3D(
        outputs, inside(layer.kernel_size, taps), dilation_rate=inside(layer.dilation_rate, 1), **options
    )
    taken = Taken(kernel, _mapped(prepare, place, taps, place.kernel, center))
    steps = [Step(computed_on_images(conv), [taken, *bias], place.kernel.described(taps), initializers)]
    if layer.padding == "valid" and taps > 1:
        ends = inside(((0, 0), (0, 0)), ((taps - 1) // 2, taps // 2))
        steps.insert(0, Step(layers.ZeroPadding3D(ends, name=f"{conv.name}_depth_pad", dtype=layer.dtype_policy)))
        if not layer.use_bias or name:  # with a leaky ReLU behind them, TensorFlow's graphs by oneDNN get both wrong
            steps.insert(1, Step(layers.MaxPooling3D(1, name=f"{conv.name}_depth_apart", dtype=layer.dtype_policy)))
    return steps


def separable(layer: layers.SeparableConv2D, place: Place) -> list[Step]:
    """SeparableConv2D as a grouped Conv3D, `<name>_depthwise`, and a pointwise Conv3D, which keeps the name."""
    first = convolution(layer, place, "depthwise", f"{layer.name}_depthwise")
    kernel = layer.pointwise_kernel
    pointwise = layers.Conv3D(layer.filters, 1, **_settings(layer, "pointwise", kernel.shape, 0))
    arrays = [Taken(kernel, partial(np.expand_dims, axis=0)), *_bias(layer)]
    return [*first, Step(pointwise, arrays, "planar", _initializers(layer, "pointwise"))]


def transposed(layer: layers.Conv2DTranspose, place: Place) -> list[Step]:
    """Conv2DTranspose as Conv3DTranspose.

    If depth is also multiplied, the kernel is repeated at the same number of taps, so that each slice is repeated.
    """
    if place.kernel.name in VARIANTS:
        raise ValueError(
            f"{place.kernel.name!r} is only for convolutions; give it another mapping, e.g. "
            f"{{'{layer.name}': 'planar', '*': '{place.kernel.name}'}}"
        )
    inside, factor = place.depth_axis.in_volume, place.factor
    if factor > 1:
        mapping, taps = KernelMapping("repeat"), factor
    else:
        mapping, taps = place.kernel, place.kernel.taps(layer.kernel_size)
    padding, is_same = layer.output_padding, layer.padding == "same"
    if padding is not None and is_same and taps % 2 == 0:
        advice = "give it an odd kernel_depth" if factor == 1 else "keep depth there (depth_pooling='keep', or 1)"
        raise ValueError(f"its output_padding={padding} does not go with {taps} taps along depth; {advice}")
    made = layers.Conv3DTranspose(
        layer.filters,
        inside(layer.kernel_size, taps),
        inside(layer.strides, factor),
        output_padding=None if padding is None else inside(padding, factor - 1 if is_same else 0),
        dilation_rate=inside(layer.dilation_rate, 1),
        **_settings(layer, "kernel", layer.kernel.shape, place.depth_axis.axis),
    )
    kernel = Taken(layer.kernel, _mapped(unchanged, place, taps, mapping))
    steps = [Step(made, [kernel, *_bias(layer)], mapping.described(taps), _initializers(layer, "kernel"))]
    if layer.padding == "valid" and factor == 1 and taps > 1:
        ends = inside(((0, 0), (0, 0)), ((taps - 1) // 2, taps // 2))
        steps.append(Step(layers.Cropping3D(ends, name=f"{layer.name}_depth_crop", dtype=layer.dtype_policy)))
    return steps


def misread_after_padding(network: keras.Model) -> set[int]:
    """The ids of the nodes of convolutions whose result TensorFlow's graphs by oneDNN get wrong after a padding.

    They pad what a layer before has padded, or have no bias and a leaky ReLU behind them.
    """
    found: set[int] = set()

    def visit(name: str, node: Any, taken: list[Any]) -> list[Any]:
        layer = node.operation
        if isinstance(layer, _UNCHANGED):
            return taken
        if _is_leaky(layer.activation if type(layer) is layers.Activation else layer):
            found.update(each for each in taken if type(each) is int)
        if type(layer) is layers.Conv2D and True in taken:
            if layer.padding == "same" and max(layer.kernel_size) > 1:
                found.add(id(node))
            elif not layer.use_bias:
                if _is_leaky(layer.activation):
                    found.add(id(node))
                return [id(node)]  # until a leaky ReLU takes it
        return [type(layer) is layers.ZeroPadding2D] * len(node.outputs)

    pass_through(network, [False] * len(network.inputs), visit)
    return found


def padded_once(plane: keras.layers.ZeroPadding3D, depth: keras.layers.ZeroPadding3D) -> keras.layers.ZeroPadding3D:
    """Merge two paddings into one layer: of two before a convolution, TensorFlow's oneDNN graphs lose one."""
    ends = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(plane.padding, depth.padding, strict=True)]
    return keras.layers.ZeroPadding3D(ends, name=depth.name, dtype=depth.dtype_policy)


def _is_leaky(function: Any) -> bool:
    return "leaky" in getattr(function, "__name__", type(function).__name__).lower()


def _mapped(prepare: Change, place: Place, taps: int, mapping: KernelMapping, center: int | None = None) -> Change:
    axis = place.depth_axis.axis  # kept with the weight, unlike the place, which has the whole 2D network
    return lambda kernel: mapping.apply(prepare(kernel), taps, axis, center)


def _settings(layer: Any, kind: str, shape: tuple[int, ...], axis: int | None) -> dict[str, Any]:
    """The settings that a 3D convolution shares with its 2D layer; arguments as of `weight_objects`."""
    activation = None if has_weights(layer.activation) else layer.activation
    objects = {f"kernel_{part}": held for part, held in weight_objects(layer, kind, shape, axis).items()}
    shared = {key: getattr(layer, key) for key in _SHARED}
    return {"activation": activation, "dtype": layer.dtype_policy, **shared, **objects, **_ZEROS}


def _initializers(layer: Any, kind: str) -> dict[str, Any]:
    return {"kernel_initializer": getattr(layer, f"{kind}_initializer"), "bias_initializer": layer.bias_initializer}


def _bias(layer: Any) -> list[Taken]:
    return [Taken(layer.bias)] if layer.use_bias else []


RULES: dict[type, Rule] = {
    layers.Conv2D: convolution,
    layers.DepthwiseConv2D: partial(convolution, kind="depthwise"),
    layers.SeparableConv2D: separable,
    layers.Conv2DTranspose: transposed,
}
