"""Output shapes of layers on volumes, (batch, depth, rows, cols, channels); unknown sizes stay None."""

from collections.abc import Callable, Iterable
from math import prod

from planar3d.errors import Planar3DError
from planar3d.graph.description import Layer, Shape
from planar3d.graph.reach import extents_of, transposed_padding


def broadcast(layer: Layer, *taken: Shape) -> Shape:
    """For elementwise combinations, with broadcasting."""
    if len({len(shape) for shape in taken}) > 1:
        raise _unlike(layer, taken)
    return tuple(_common(layer, lengths, taken) for lengths in zip(*taken, strict=True))


def joined(layer: Layer, *taken: Shape) -> Shape:
    """For concatenations."""
    axis = layer.axis % len(taken[0])
    along = [shape[axis] for shape in taken]
    others = [(*shape[:axis], 1, *shape[axis + 1 :]) for shape in taken]
    result = list(broadcast(layer, *others))
    result[axis] = None if None in along else sum(along)  # type: ignore[arg-type]
    return tuple(result)


def of_convolution(layer: Layer, taken: Shape) -> Shape:
    """For convolutions."""
    return (*_slid(layer, taken), layer.filters)


def of_pooling(layer: Layer, taken: Shape) -> Shape:
    """For poolings."""
    return (*_slid(layer, taken), taken[-1])


def of_transposed(layer: Layer, taken: Shape) -> Shape:
    """For transposed convolutions."""

    def enlarged(length: int, axis: int) -> int:
        extent, stride = extents_of(layer)[axis], layer.strides[axis]
        (before, behind), added = transposed_padding(extent, stride, layer.padding)
        return (length - 1) * stride + extent - before - behind + added

    return (*_each_axis(taken, enlarged), layer.filters)


def repeated(layer: Layer, taken: Shape) -> Shape:
    """For upsampling by repetition."""
    return (*_each_axis(taken, lambda length, axis: length * layer.size[axis]), taken[-1])


def padded(layer: Layer, taken: Shape) -> Shape:
    """For zero padding."""
    return (*_each_axis(taken, lambda length, axis: length + sum(layer.padding[axis])), taken[-1])


def cropped(layer: Layer, taken: Shape) -> Shape:
    """For cropping."""
    return (*_each_axis(taken, lambda length, axis: length - sum(layer.cropping[axis])), taken[-1])


def permuted(layer: Layer, taken: Shape) -> Shape:
    """For permutations."""
    return (taken[0], *(taken[axis] for axis in layer.dims))


def reshaped(layer: Layer, taken: Shape) -> Shape:
    """For reshapes; one length may be inferred."""
    target, lengths = layer.target_shape, taken[1:]
    left = None if None in lengths else prod(lengths) // abs(prod(target))  # type: ignore[arg-type]
    result = [left if length == -1 else length for length in target]
    if None not in (*lengths, *result) and prod(result) != prod(lengths):  # type: ignore[arg-type]
        raise _unlike(layer, [taken])
    return (taken[0], *result)


def reduced(layer: Layer, taken: Shape) -> Shape:
    """For reductions over whole axes."""
    gone = reduced_axes(layer, len(taken))
    kept = [1 if axis in gone else n for axis, n in enumerate(taken) if layer.keepdims or axis not in gone]
    return tuple(kept)


def reduced_axes(layer: Layer, rank: int) -> list[int]:
    """The reduced axes: those named by the layer, or all axes of the volume."""
    axes = layer.settings.get("axis", range(1, rank - 1))
    return [axis % rank for axis in (range(rank) if axes is None else axes)]


def of_kernel(layer: Layer, taken: Shape) -> dict[str, Shape]:
    """The arrays of a convolution with this input, by name."""
    channels, filters, groups = taken[-1], layer.filters, layer.groups
    if channels is None or channels % groups or filters % groups:
        raise _unlike(layer, [taken])
    return {"kernel": (*layer.kernel_size, channels // groups, filters)} | _bias(layer)


def of_transposed_kernel(layer: Layer, taken: Shape) -> dict[str, Shape]:
    """The arrays of a transposed convolution."""
    return {"kernel": (*layer.kernel_size, layer.filters, taken[-1])} | _bias(layer)


def of_groups(layer: Layer, taken: Shape) -> dict[str, Shape]:
    """The arrays of a group normalization."""
    if taken[-1] is None or taken[-1] % layer.groups:
        raise _unlike(layer, [taken])
    return affine(layer, taken)


def of_statistics(layer: Layer, taken: Shape) -> dict[str, Shape]:
    """The arrays of a batch normalization."""
    return affine(layer, taken) | dict.fromkeys(("moving_mean", "moving_variance"), taken[-1:])


def of_data(layer: Layer, taken: Shape) -> dict[str, Shape]:
    """The arrays of a normalization by its data's statistics."""
    per_axis = taken[-1:] if layer.axis else ()
    return {} if layer.input_mean is not None else {"mean": per_axis, "variance": per_axis, "count": ()}


def of_slopes(layer: Layer, taken: Shape) -> dict[str, Shape]:
    """The array of slopes for negative values."""
    shared = layer.shared_axes or ()
    return {"alpha": tuple(1 if axis in shared else n for axis, n in enumerate(taken[1:], start=1))}


def of_units(layer: Layer, taken: Shape) -> Shape:
    """For dense layers."""
    return (*taken[:-1], layer.units)


def of_layer_scale(layer: Layer, taken: Shape) -> dict[str, Shape]:
    """The array of a factor per channel."""
    return dict.fromkeys(layer.arrays, taken[-1:])


def of_dense(layer: Layer, taken: Shape) -> dict[str, Shape]:
    """The arrays of a dense layer."""
    return {"kernel": (taken[-1], layer.units)} | ({"bias": (layer.units,)} if layer.use_bias else {})


def _bias(layer: Layer) -> dict[str, Shape]:
    return {"bias": (layer.filters,)} if layer.use_bias else {}


def affine(layer: Layer, taken: Shape) -> dict[str, Shape]:
    """The arrays of a normalization: gamma and beta."""
    return {part: taken[-1:] for part, there in (("gamma", layer.scale), ("beta", layer.center)) if there}


def _slid(layer: Layer, taken: Shape) -> Shape:
    def slid(length: int, axis: int) -> int:
        lost = extents_of(layer)[axis] - 1 if layer.padding == "valid" else 0
        return -(-(length - lost) // layer.strides[axis])

    return _each_axis(taken, slid)


def _each_axis(taken: Shape, change: Callable[[int, int], int]) -> Shape:
    """A shape with changed lengths of the volume's axes."""
    _, *lengths, _ = taken
    return (taken[0], *(None if n is None else change(n, axis) for axis, n in enumerate(lengths)))


def _common(layer: Layer, lengths: Iterable[int | None], taken: Iterable[Shape]) -> int | None:
    several = set(lengths) - {1}
    if len(several - {None}) > 1:
        raise _unlike(layer, taken)
    return max(several - {None}, default=None if several else 1)  # type: ignore[type-var]


def _unlike(layer: Layer, taken: Iterable[Shape]) -> Planar3DError:
    return Planar3DError(f"Layer {layer.name} ({layer.kind}) takes {list(taken)}, which are incompatible.")
