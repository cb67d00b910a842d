"""Layers along axes, or that change axes, as ONNX operators; the others are in `graph/operators.py`."""

from typing import Any

import numpy as np

from planar3d.graph.operators import CHANNELS_FIRST, Use, Writer
from planar3d.graph.shapes import reduced_axes


def concatenation(use: Use) -> Any:
    """Concatenate, along any axis."""
    return use.add("Concat", *use.values, axis=CHANNELS_FIRST.index(use.layer.axis % 5))


def softmax(use: Use) -> Any:
    """Softmax along an axis."""
    if not isinstance(use.layer.axis, int):
        raise use.unknown("axis", use.layer.axis)
    return use.add("Softmax", *use.values, axis=CHANNELS_FIRST.index(use.layer.axis % 5))


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
        (source,) = use.tensors
        first = channels_first(len(source.shape))
        axes = [first.index(axis) for axis in reduced_axes(use.layer, len(first))]
        return use.add(op, source.value, axes=axes, keepdims=int(use.layer.keepdims))

    return write


def reshape(use: Use) -> Any:
    """Reshape, on values in Keras' order of axes."""
    (source,), target = use.tensors, use.layer.target_shape
    back = sorted(range(len(source.shape)), key=channels_first(len(source.shape)).__getitem__)
    last = use.add("Transpose", source.value, part="last", perm=back)
    result = use.add("Reshape", last, use.constant("shape", np.array([0, *target])), part="reshaped")
    return use.add("Transpose", result, perm=channels_first(len(target) + 1))


def permutation(use: Use) -> Any:
    """Permute the axes of volumes."""
    if len(use.layer.dims) != 4:
        raise use.unknown("dims", use.layer.dims)
    order = (0, *use.layer.dims)
    return use.add("Transpose", *use.values, perm=[CHANNELS_FIRST.index(order[axis]) for axis in CHANNELS_FIRST])


def channels_first(rank: int) -> list[int]:
    """Keras' axes in the order of ONNX, for tensors of any rank."""
    return [0, rank - 1, *range(1, rank - 1)] if rank > 1 else [0]
