"""Layers along axes, or that change axes, as ONNX operators; the others are in `graph/operators.py`."""

from typing import Any

import numpy as np

from planar3d.graph.description import Layer
from planar3d.graph.operators import Use, Writer, activated, array_of
from planar3d.graph.shapes import reduced_axes


def concatenation(use: Use) -> Any:
    """Concatenate, along any axis."""
    return use.add("Concat", *use.values, axis=_place_of(use.layer.axis, use.rank))


def softmax(use: Use) -> Any:
    """Softmax along an axis."""
    if not isinstance(use.layer.axis, int):
        raise use.unknown("axis", use.layer.axis)
    return use.add("Softmax", *use.values, axis=_place_of(use.layer.axis, use.rank))


def normalization(use: Use) -> Any:
    """BatchNormalization with the statistics of training."""
    layer = use.layer
    if layer.axis not in (-1, use.rank - 1):
        raise use.unknown("axis", layer.axis)
    mean, variance = array_of(layer.moving_mean), array_of(layer.moving_variance)
    gamma, beta = _scale_and_offset(layer, len(mean))
    weights = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": variance}
    constants = [use.constant(part, array) for part, array in weights.items()]
    return use.add("BatchNormalization", *use.values, *constants, epsilon=float(layer.epsilon))


def group_normalization(use: Use) -> Any:
    """GroupNormalization; instance normalization with one channel per group."""
    layer, (source,) = use.layer, use.tensors
    channels = source.shape[-1]
    if channels is None or use.rank != 5:
        raise use.unknown("inputs", [source.shape])
    if layer.axis not in (-1, 4):
        raise use.unknown("axis", layer.axis)
    gamma, beta = _scale_and_offset(layer, channels)
    if layer.groups == channels:
        ends = [use.constant("gamma", gamma), use.constant("beta", beta)]
        return use.add("InstanceNormalization", source.value, *ends, epsilon=float(layer.epsilon))
    grouped = use.add("Reshape", source.value, use.constant("groups", np.array([0, layer.groups, -1])), part="grouped")
    ends = [use.constant(part, np.full(layer.groups, n, np.float32)) for part, n in (("one", 1), ("zero", 0))]
    alone = use.add("InstanceNormalization", grouped, *ends, part="alone", epsilon=float(layer.epsilon))
    result = use.add("Reshape", alone, use.add("Shape", source.value, part="shape"), part="joined")
    return _per_channel(use, result, gamma=gamma, beta=beta)


def layer_normalization(use: Use) -> Any:
    """LayerNormalization over channels."""
    layer, (source,) = use.layer, use.tensors
    if layer.rms_scaling or any(axis not in (-1, use.rank - 1) for axis in layer.axis) or source.shape[-1] is None:
        raise use.unknown("axis or rms_scaling", (layer.axis, layer.rms_scaling))
    mean = use.add("ReduceMean", source.value, part="mean", axes=[1], keepdims=1)
    centered = use.add("Sub", source.value, mean, part="centered")
    square = use.add("Mul", centered, centered, part="square")
    variance = use.add("ReduceMean", square, part="variance", axes=[1], keepdims=1)
    raised = use.add("Add", variance, use.constant("epsilon", np.float32(layer.epsilon)), part="raised")
    alone = use.add("Div", centered, use.add("Sqrt", raised, part="deviation"), part="alone")
    gamma, beta = _scale_and_offset(layer, source.shape[-1])
    return _per_channel(use, alone, gamma=gamma, beta=beta)


def standardization(use: Use) -> Any:
    """Normalization with given statistics, or with those of its data."""
    layer = use.layer
    if any(axis not in (-1, use.rank - 1) for axis in layer.axis):
        raise use.unknown("axis", layer.axis)
    is_given = layer.input_mean is not None
    statistics = (layer.input_mean, layer.input_variance) if is_given else (layer.mean, layer.variance)
    mean, variance = map(array_of, statistics)
    deviation = np.maximum(np.sqrt(variance), np.float32(1e-7))  # as in Keras
    scale, offset = (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)
    return _per_channel(use, *use.values, scale=scale, offset=offset)


def layer_scale(use: Use) -> Any:
    """LayerScale of ConvNeXt."""
    (gamma,) = use.layer.arrays.values()  # without a name of its own
    return _per_channel(use, *use.values, gamma=array_of(gamma))


def slopes(use: Use) -> Any:
    """PReLU with a slope per channel."""
    alpha = array_of(use.layer.alpha)
    if alpha.size > alpha.shape[-1]:
        raise use.unknown("shared_axes", use.layer.shared_axes)
    return use.add("PRelu", *use.values, use.constant("alpha", alpha.reshape(-1, *[1] * (use.rank - 2))))


def dense(use: Use) -> Any:
    """Dense, as a convolution of single voxels."""
    layer = use.layer
    if use.rank != 5 or "kernel_scale" in layer.arrays:
        raise use.unknown("inputs or quantization", [tensor.shape for tensor in use.tensors])
    kernel = array_of(layer.kernel).T[..., None, None, None]
    inputs = [*use.values, use.constant("kernel", kernel)]
    if layer.use_bias:
        inputs.append(use.constant("bias", array_of(layer.bias)))
    return activated(use, use.add("Conv", *inputs, kernel_shape=[1, 1, 1]))


def _scale_and_offset(layer: Layer, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Gamma and beta of a normalization; 1 and 0 where it has none."""
    gamma = array_of(layer.gamma) if layer.scale else np.ones(channels, np.float32)
    return gamma, array_of(layer.beta) if layer.center else np.zeros(channels, np.float32)


def rescaling(use: Use) -> Any:
    """Rescaling, of all values or per channel."""
    parts = {part: array_of(getattr(use.layer, part)) for part in ("scale", "offset")}
    return _per_channel(use, *use.values, **parts)


def _per_channel(use: Use, value: Any, **parts: np.ndarray) -> Any:
    """A value times the first part plus the second, which are numbers for all channels or for each."""
    channels = use.tensors[0].shape[-1]
    for op, (part, numbers) in zip(("Mul", "Add"), parts.items(), strict=False):
        if numbers.size != 1 and {numbers.size, numbers.shape[-1]} != {channels}:  # by position, or of other channels
            raise use.unknown(f"{part}.shape", numbers.shape)
        value = use.add(op, value, use.constant(part, numbers.reshape(-1, *[1] * (use.rank - 2))))
    return value


def upsampling(use: Use) -> Any:
    """UpSampling3D, by repetition."""
    scales = use.constant("scales", np.array([1, 1, *use.layer.size], np.float32))
    modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return use.add("Resize", *use.values, "", scales, **modes)


def zero_padding(use: Use) -> Any:
    """ZeroPadding3D."""
    before, behind = zip(*use.layer.padding, strict=True)
    return use.add("Pad", *use.values, use.constant("pads", np.array([0, 0, *before, 0, 0, *behind], np.int64)))


def cropping(use: Use) -> Any:
    """Cropping3D."""
    before, behind = zip(*use.layer.cropping, strict=True)
    ends = [-length or np.iinfo(np.int64).max for length in behind]
    limits = [use.constant(part, np.array(v, np.int64)) for part, v in (("from", before), ("to", ends))]
    return use.add("Slice", *use.values, *limits, use.constant("axes", np.array([2, 3, 4])))


def reduction(op: str) -> Writer:
    """One value for whole axes."""

    def write(use: Use) -> Any:
        gone, order = reduced_axes(use.layer, use.rank), channels_first(use.rank)
        axes = [order.index(axis) for axis in gone]
        result = use.add(op, *use.values, axes=axes, keepdims=int(use.layer.keepdims))
        if use.layer.keepdims:
            return result
        left = [axis for axis in order if axis not in gone]
        perm = [left.index(sorted(left)[axis]) for axis in channels_first(len(left))]  # another axis may be the last
        return result if perm == sorted(perm) else use.add("Transpose", result, part="ordered", perm=perm)

    return write


def reshape(use: Use) -> Any:
    """Reshape, on values in Keras' order of axes."""
    target, back = use.layer.target_shape, [_place_of(axis, use.rank) for axis in range(use.rank)]
    last = use.add("Transpose", *use.values, part="last", perm=back)
    result = use.add("Reshape", last, use.constant("shape", np.array([0, *target])), part="reshaped")
    return use.add("Transpose", result, perm=channels_first(len(target) + 1))


def permutation(use: Use) -> Any:
    """Permute."""
    order = (0, *use.layer.dims)
    perm = [_place_of(order[axis], use.rank) for axis in channels_first(use.rank)]
    return use.add("Transpose", *use.values, perm=perm)


def channels_first(rank: int) -> list[int]:
    """Keras' axes in the order of ONNX, for tensors of any rank."""
    return [0, rank - 1, *range(1, rank - 1)] if rank > 1 else [*range(rank)]


def _place_of(axis: int, rank: int) -> int:
    """The place in ONNX of an axis of Keras."""
    return channels_first(rank).index(axis % rank)
