"""Layers along axes, or that change axes, as ONNX operators; the others are in `graph/operators.py`."""

from typing import Any

import numpy as np

from planar3d.graph.description import Layer
from planar3d.graph.operators import Use, Writer, array_of
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
    return use.add("BatchNormalization", *use.values, *constants, epsilon=layer.epsilon)


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
        return use.add("InstanceNormalization", source.value, *ends, epsilon=layer.epsilon)
    grouped = use.add("Reshape", source.value, use.constant("groups", np.array([0, layer.groups, -1])), part="grouped")
    ends = [use.constant(part, np.full(layer.groups, n, np.float32)) for part, n in (("one", 1), ("zero", 0))]
    alone = use.add("InstanceNormalization", grouped, *ends, part="alone", epsilon=layer.epsilon)
    result = use.add("Reshape", alone, use.add("Shape", source.value, part="shape"), part="joined")
    for op, part, values in (("Mul", "gamma", gamma), ("Add", "beta", beta)):
        result = use.add(op, result, use.constant(part, values.reshape(-1, 1, 1, 1)))
    return result


def _scale_and_offset(layer: Layer, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Gamma and beta of a normalization; 1 and 0 where it has none."""
    gamma = array_of(layer.gamma) if layer.scale else np.ones(channels, np.float32)
    return gamma, array_of(layer.beta) if layer.center else np.zeros(channels, np.float32)


def rescaling(use: Use) -> Any:
    """Rescaling, of all values or per channel."""
    (result,) = use.values
    for op, part in (("Mul", "scale"), ("Add", "offset")):
        value = np.atleast_1d(np.asarray(getattr(use.layer, part), np.float32))
        if value.size > value.shape[-1]:  # by position
            raise use.unknown(f"{part}.shape", value.shape)
        result = use.add(op, result, use.constant(part, value.reshape(-1, *[1] * (use.rank - 2))))
    return result


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
