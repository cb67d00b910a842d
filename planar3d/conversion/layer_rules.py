"""Conversion rules of layers without kernels."""

from functools import partial
from typing import Any

import numpy as np
from keras import layers

from planar3d.conversion import convolutions
from planar3d.conversion.held_objects import held_and_plain, weight_objects
from planar3d.conversion.place import Place, Rule, Step, Taken, copied
from planar3d.conversion.slices import attention, by_slice, permute, reshape
from planar3d.graph.keras_graph import Max, Mean, layer_type
from planar3d.graph.layers import KINDS
from planar3d.graph.reach import along_axes, within_slices


def everywhere(layer: Any, place: Place) -> list[Step]:
    """Elementwise layers, and layers per channel: the same in 3D."""
    return [copied(layer)]


def rescaling(layer: layers.Rescaling, place: Place) -> list[Step]:
    """Scaling by a number, a vector of channels, or a map that is the same on all slices."""
    scale, offset = (place.constant(value) for value in (layer.scale, layer.offset))
    return [Step(layers.Rescaling(scale, offset, name=layer.name, dtype=layer.dtype_policy))]


def same_axes(layer: Any, place: Place) -> list[Step]:
    """Layers along one or several axes: the corresponding axes in 3D."""
    axes = held_and_plain(layer)[1]["axis"]
    if not place.has_depth:
        return [copied(layer)]
    if isinstance(axes, int):
        return [copied(layer, axis=place.depth_axis.axis_in_3d(axes, place.rank))]
    # Only channels are counted from the end, so that one layer serves maps and vectors.
    if [axis % place.rank for axis in axes] == [place.rank - 1]:
        return [copied(layer, axis=[-1])]
    # Others are counted as they were, since Keras sorts them before it shapes the weights.
    moved = [place.depth_axis.axis_in_3d(axis, place.rank) - (axis < 0) * (place.rank + 1) for axis in axes]
    return [copied(layer, axis=moved)]


def batch_normalization(layer: Any, place: Place) -> list[Step]:
    """Statistics per channel; statistics per row or column would depend on the position."""
    if layer.axis % place.rank != place.rank - 1:
        raise ValueError(f"it normalizes along axis {layer.axis}; the last axis (channels) is needed")
    return [copied(layer, axis=-1)]


def group_normalization(layer: layers.GroupNormalization, place: Place) -> list[Step]:
    """Statistics over the slice, as in the 2D layer, or over the volume, as in global pooling."""
    steps = batch_normalization(layer, place)
    return steps if place.whole_volume else by_slice(layer, place, axis=-1)


def rms_normalization(layer: layers.RMSNormalization, place: Place) -> list[Step]:
    """Along channels, else by slice: Keras multiplies by the scale as if its axes were the last ones."""
    along_channels = [axis % place.rank for axis in layer.axis] == [place.rank - 1]
    return (same_axes if along_channels else by_slice)(layer, place)


def prelu(layer: layers.PReLU, place: Place) -> list[Step]:
    """Slopes per position of the plane are shared by all slices."""
    if not place.has_depth:
        return [copied(layer)]
    axis = place.depth_axis.position(place.rank)
    shared = [place.depth_axis.axis_in_3d(a, place.rank) for a in layer.shared_axes or ()]
    objects = weight_objects(layer, "alpha", layer.alpha.shape, axis - 1)
    changes = {f"alpha_{part}": held for part, held in objects.items()} | {"alpha_initializer": "zeros"}
    step = copied(layer, shared_axes=sorted([*shared, axis]), **changes)
    alpha = Taken(layer.alpha, partial(np.expand_dims, axis=axis - 1))
    return [Step(step.operation, [alpha], "copied", {"alpha_initializer": layer.alpha_initializer})]


def dropout(layer: Any, place: Place) -> list[Step]:
    """Values dropped together in a slice are dropped together in all slices."""
    noise = layer.noise_shape
    if noise is None or not place.has_depth:
        return [copied(layer)]
    return [copied(layer, noise_shape=place.depth_axis.with_depth(noise, 1))]


def spatial_dropout(layer: layers.SpatialDropout2D, place: Place) -> list[Step]:
    """Drops channels of the whole volume."""
    return [Step(layers.SpatialDropout3D(layer.rate, seed=layer.seed, name=layer.name, dtype=layer.dtype_policy))]


def pooling(layer: Any, place: Place) -> list[Step]:
    """Pooling in the plane, and along depth if depth is also divided; no slice is lost at the end."""
    kind = layers.MaxPooling3D if isinstance(layer, layers.MaxPooling2D) else layers.AveragePooling3D
    inside, factor, dtype = place.depth_axis.in_volume, place.factor, layer.dtype_policy
    window = layer.pool_size[0] if factor == max(layer.strides) > 1 else factor
    fits = window == factor and place.depth is not None and place.depth % factor == 0
    if layer.padding == "same" or factor == 1 or fits:
        size, strides = inside(layer.pool_size, window), inside(layer.strides, factor)
        return [Step(kind(size, strides, layer.padding, name=layer.name, dtype=dtype))]
    # Depth separately, since only there windows may extend beyond the ends, which are then ignored.
    plane = kind(inside(layer.pool_size, 1), inside(layer.strides, 1), name=layer.name, dtype=dtype)
    along = inside((1, 1), window), inside((1, 1), factor)
    return [Step(plane), Step(kind(*along, "same", name=f"{layer.name}_depth", dtype=dtype))]


def global_pooling(layer: Any, place: Place) -> list[Step]:
    """Pooling over each slice, or over the volume."""
    average = isinstance(layer, layers.GlobalAveragePooling2D)
    if place.whole_volume:
        kind = layers.GlobalAveragePooling3D if average else layers.GlobalMaxPooling3D
        return [Step(kind(keepdims=layer.keepdims, name=layer.name, dtype=layer.dtype_policy))]
    axes = [place.depth_axis.axis_in_3d(axis, 4) for axis in (1, 2)]
    step = Step((Mean if average else Max)(axis=axes, keepdims=layer.keepdims, name=layer.name))
    if layer.compute_dtype == place.inputs[0].dtype:
        return [step]
    return [Step(layers.Identity(name=f"{layer.name}_cast", dtype=layer.dtype_policy)), step]


def padding_or_cropping(layer: Any, place: Place) -> list[Step]:
    """The plane is padded or cropped; deep kernels pad depth themselves."""
    pads = isinstance(layer, layers.ZeroPadding2D)
    ends = place.depth_axis.in_volume(layer.padding if pads else layer.cropping, (0, 0))
    kind = layers.ZeroPadding3D if pads else layers.Cropping3D
    return [Step(kind(ends, name=layer.name, dtype=layer.dtype_policy))]


def upsampling(layer: layers.UpSampling2D, place: Place) -> list[Step]:
    """Repeats rows and columns, and slices if depth is multiplied; interpolates within slices."""
    inside = place.depth_axis.in_volume
    if layer.interpolation == "nearest":
        size = inside(layer.size, place.factor)
        return [Step(layers.UpSampling3D(size, name=layer.name, dtype=layer.dtype_policy))]
    steps = by_slice(layer, place)
    if place.factor > 1:
        size = inside((1, 1), place.factor)
        steps.append(Step(layers.UpSampling3D(size, name=f"{layer.name}_depth", dtype=layer.dtype_policy)))
    return steps


def resizing(layer: layers.Resizing, place: Place) -> list[Step]:
    """Resizes each slice; a size does not say how depth that was divided changes."""
    if place.is_reduced:
        raise ValueError(
            "it resizes rows and columns that are already reduced, and would leave depth as it is. Replace it with "
            "UpSampling2D, or convert with depth_pooling='keep'"
        )
    return by_slice(layer, place)


# Layers of single images or sequences, without chance and without a depth of their own.
_BY_SLICE = (
    "AveragePooling1D CenterCrop Conv1D Conv1DTranspose Cropping1D DepthwiseConv1D EinsumDense Embedding "
    "GlobalAveragePooling1D GlobalMaxPooling1D MaxPooling1D SeparableConv1D UpSampling1D ZeroPadding1D"
)
# Layers that give inputs of fewer axes new ones, behind the batch.
MERGES = (layers.Add, layers.Average, layers.Maximum, layers.Minimum, layers.Multiply, layers.Subtract)
_SAME_IN_3D = {within_slices: everywhere, along_axes: same_axes}
# By exact type: a subclass may behave differently.
RULES: dict[type, Rule] = {
    **{
        kind: _SAME_IN_3D[known.reach]
        for name, known in KINDS.items()
        if known.reach in _SAME_IN_3D and (kind := layer_type(name))
    },
    **{getattr(layers, name): by_slice for name in _BY_SLICE.split()},
    layers.Rescaling: rescaling,
    layers.AlphaDropout: dropout,
    layers.AveragePooling2D: pooling,
    layers.BatchNormalization: batch_normalization,
    layers.Cropping2D: padding_or_cropping,
    layers.Dropout: dropout,
    layers.Flatten: reshape,
    layers.GlobalAveragePooling2D: global_pooling,
    layers.GlobalMaxPooling2D: global_pooling,
    layers.GroupNormalization: group_normalization,
    layers.MaxPooling2D: pooling,
    layers.MultiHeadAttention: attention,
    layers.PReLU: prelu,
    layers.Permute: permute,
    layers.RMSNormalization: rms_normalization,
    layers.Reshape: reshape,
    layers.Resizing: resizing,
    layers.SpatialDropout2D: spatial_dropout,
    layers.UnitNormalization: same_axes,
    layers.UpSampling2D: upsampling,
    layers.ZeroPadding2D: padding_or_cropping,
    **convolutions.RULES,
}
