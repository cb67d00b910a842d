"""Convolutions in 3D: strides, paddings, and a kernel mapped along depth."""

from typing import Any

import numpy as np
from keras import layers

from planar3d.conversion.acs import VARIANTS, ACSConv3D
from planar3d.conversion.channels import fitted
from planar3d.conversion.choices import KernelMapping
from planar3d.conversion.place import Place, Rule, Step, values
from planar3d.errors import ConversionError

_PARTS = ("initializer", "regularizer", "constraint")
# Of a layer's configuration, what its convolution in 3D has under the same name and of the same meaning.
_SHARED = (
    "trainable",
    "dtype",
    "padding",
    "activation",
    "use_bias",
    "activity_regularizer",
    *(f"bias_{part}" for part in _PARTS),
)


def convolution(layer: layers.Conv2D, place: Place) -> list[Step]:
    """Conv2D as Conv3D, or as an ACS convolution; its kernel is fitted to another number of input channels."""
    kernel = values(layer.kernel)
    if layer.groups == 1 and place.channels is not None and place.channels != kernel.shape[2]:
        kernel = fitted(kernel, place.channels)
    return _convolved(layer, place, kernel, layer.get_config())


def depthwise(layer: layers.DepthwiseConv2D, place: Place) -> list[Step]:
    """DepthwiseConv2D as a Conv3D with a group for each channel."""
    return _convolved(layer, place, *_grouped(layer))


def separable(layer: layers.SeparableConv2D, place: Place) -> list[Step]:
    """SeparableConv2D as a grouped Conv3D, `<name>_depthwise`, and a pointwise one, which keeps the name."""
    config = layer.get_config()
    kernel, grouped = _grouped(layer)
    plain = {"use_bias": False, "activation": None, "activity_regularizer": None}
    first = _convolved(layer, place, kernel, grouped | plain, f"{layer.name}_depthwise")
    common = _shared(config) | {"padding": "valid"} | _kernel_parts(config, "pointwise")
    pointwise = layers.Conv3D(layer.filters, 1, name=layer.name, **common)
    arrays = [values(layer.pointwise_kernel)[np.newaxis], *_bias(layer)]
    return [*first, Step(pointwise, arrays, "planar")]


def transposed(layer: layers.Conv2DTranspose, place: Place) -> list[Step]:
    """Conv2DTranspose as Conv3DTranspose.

    Where depth is multiplied as well, the kernel is repeated at as many taps, so that each slice becomes as many.
    """
    _refuse_acs(layer, place)
    config = layer.get_config()
    kernel = values(layer.kernel)
    inside, factor = place.layout.in_volume, place.factor
    if factor > 1:
        if layer.output_padding is not None:
            raise ConversionError(
                f"{layer.name} (Conv2DTranspose) has output_padding={layer.output_padding}, which has no like along "
                "depth; keep depth there (depth_pooling='keep', or 1 at its level)."
            )
        mapping, taps = KernelMapping("repeat"), factor
    else:
        mapping, taps = place.kernel, place.kernel.taps(layer.kernel_size)
    mapped = mapping.apply(kernel, taps, place.layout.axis)
    padding = layer.output_padding
    made = layers.Conv3DTranspose(
        layer.filters,
        inside(layer.kernel_size, taps),
        inside(layer.strides, factor),
        output_padding=None if padding is None else inside(_pair(padding), 0),
        dilation_rate=inside(_pair(layer.dilation_rate), 1),
        name=layer.name,
        **_shared(config),
        **_kernel_parts(config, "kernel"),
    )
    steps = [Step(made, [mapped, *_bias(layer)], mapping.described(taps))]
    if layer.padding == "valid" and factor == 1 and taps > 1:
        ends = inside(((0, 0), (0, 0)), ((taps - 1) // 2, taps // 2))
        steps.append(Step(layers.Cropping3D(ends, name=f"{layer.name}_depth_crop", dtype=layer.dtype_policy)))
    return steps


def _convolved(layer: Any, place: Place, kernel: np.ndarray, config: dict[str, Any], name: str = "") -> list[Step]:
    """A convolution of kernel (kh, kw, cin, cout); config holds groups and what is said of the kernel."""
    name = name or layer.name
    inside, taps = place.layout.in_volume, place.kernel.taps(layer.kernel_size)
    bias = _bias(layer) if config["use_bias"] else []
    if place.kernel.name in VARIANTS and taps > 1:
        return [_acs(layer, place, kernel, config, name, bias)]
    # Under 'same' padding strides move windows back, and the tap that looks at the slice itself with them.
    center = (max(taps - place.factor, 0) if layer.padding == "same" else taps - 1) // 2
    made = layers.Conv3D(
        kernel.shape[-1],
        inside(layer.kernel_size, taps),
        inside(layer.strides, place.factor),
        dilation_rate=inside(_pair(layer.dilation_rate), 1),
        groups=config["groups"],
        name=name,
        **_shared(config),
        **{f"kernel_{part}": config[f"kernel_{part}"] for part in _PARTS},
    )
    mapped = place.kernel.apply(kernel, taps, place.layout.axis, center)
    steps = [Step(made, [mapped, *bias], place.kernel.described(taps))]
    if layer.padding == "valid" and taps > 1:
        ends = inside(((0, 0), (0, 0)), ((taps - 1) // 2, taps // 2))
        steps.insert(0, Step(layers.ZeroPadding3D(ends, name=f"{name}_depth_pad", dtype=layer.dtype_policy)))
    return steps


def _acs(layer: Any, place: Place, kernel: np.ndarray, config: dict[str, Any], name: str, bias: list) -> Step:
    dilation = _pair(layer.dilation_rate)
    if place.kernel.depth not in (None, layer.kernel_size[0]) or len(set(dilation)) > 1:
        raise ConversionError(
            f"{layer.name} ({type(layer).__name__}): an ACS kernel is as deep as it has rows, here "
            f"{layer.kernel_size[0]}, and dilated alike in all directions; leave kernel_depth out, or map it otherwise."
        )
    made = ACSConv3D(
        kernel.shape[-1],
        layer.kernel_size,
        place.layout.in_volume(layer.strides, place.factor),
        layer.padding,
        dilation[0],
        config["groups"],
        config["activation"],
        config["use_bias"],
        place.layout.axis,
        place.kernel.name,
        name=name,
        dtype=config["dtype"],
        trainable=config["trainable"],
    )
    planes = [np.zeros(3, kernel.dtype)] if place.kernel.name == "acs_soft" else []
    return Step(made, [kernel, *bias, *planes], place.kernel.name)


def _grouped(layer: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """A depthwise kernel (kh, kw, cin, multiplier) as a grouped one (kh, kw, 1, cin·multiplier), and its config."""
    config = layer.get_config()
    kernel = values(layer.kernel if isinstance(layer, layers.DepthwiseConv2D) else layer.depthwise_kernel)
    rows, cols, channels, multiplier = kernel.shape
    parts = _kernel_parts(config, "depthwise")
    return kernel.reshape(rows, cols, 1, channels * multiplier), config | parts | {"groups": channels}


def _shared(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in _SHARED}


def _kernel_parts(config: dict[str, Any], kind: str) -> dict[str, Any]:
    return {f"kernel_{part}": config[f"{kind}_{part}"] for part in _PARTS}


def _bias(layer: Any) -> list[np.ndarray]:
    return [values(layer.bias)] if layer.use_bias else []


def _pair(sizes: Any) -> tuple[int, int]:
    return (sizes, sizes) if isinstance(sizes, int) else tuple(sizes)  # type: ignore[return-value]


def _refuse_acs(layer: Any, place: Place) -> None:
    if place.kernel.name in VARIANTS:
        raise ConversionError(
            f"{layer.name} ({type(layer).__name__}) cannot be mapped by {place.kernel.name!r}, which is for "
            f"convolutions; give it another mapping, e.g. {{'{layer.name}': 'planar', '*': '{place.kernel.name}'}}."
        )


RULES: dict[type, Rule] = {
    layers.Conv2D: convolution,
    layers.DepthwiseConv2D: depthwise,
    layers.SeparableConv2D: separable,
    layers.Conv2DTranspose: transposed,
}
