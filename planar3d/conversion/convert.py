"""Any functional 2D Keras network into its 3D counterpart, with its weights mapped."""

from collections.abc import Sequence

import keras

from planar3d.conversion.choices import KernelMapping, MappingChoice
from planar3d.conversion.graph_walk import Counterparts, GraphWalk, input_in_3d
from planar3d.conversion.layout import Layout
from planar3d.conversion.resolution import as_graph, depth_factors
from planar3d.conversion.transfer_report import TransferReport
from planar3d.errors import ConversionError
from planar3d.transfer.mappings import Tap


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
) -> keras.Model:
    """Turn a 2D network into its 3D counterpart: every layer replaced, every weight mapped, names kept.

    >>> import keras, planar3d
    >>> densenet = keras.applications.DenseNet121(weights=None, input_shape=(64, 64, 3), include_top=False)
    >>> planar3d.convert(densenet).output_shape
    (None, None, 2, 2, 1024)

    Args:
        model2d: a functional or sequential model of images (batch, rows, cols, channels); models may be nested in it.
        mapping: how kernels are mapped: `"planar"`, `"zero"`, `"average"`, `"scale"` or `"repeat"` as in `map_kernel`;
            `"acs"`, `"acs_mean"` or `"acs_soft"` as in `ACSConv3D`; a dictionary of these by layer name or pattern
            (planar where none fits); or a function of the layer.
        depth: slices of a volume; None leaves it open.
        depth_pooling: what strides and poolings do to depth: `"keep"` leaves it, `"match"` divides it as rows are
            divided, a list gives a factor for each level at which rows are reduced, finest first.
        global_pooling: `"slice"` pools each slice by itself, so that squeeze and excitation keep their meaning, and a
            vector (batch, channels) becomes one for each slice; `"volume"` pools over depth as well.
        in_channels: of the 3D network's image; None keeps the 2D network's. One channel sums the kernels of the first
            convolution over theirs; other numbers scale them so that equal channels give what a grey image gives.
        kernel_depth: taps of mapped kernels larger than 1×1; None takes as many as they have rows.
        axis: where depth lies: 0 before rows, 1 between rows and columns, 2 behind columns.
        name: of the 3D network; the 2D network's name with `_3d` if None.
        tap, alpha: for the mappings `"zero"` and `"scale"`, as in `map_kernel`.
        counterparts: for layers of your own, by type: a function from the 2D layer to a 3D layer of the same weights.

    Returns:
        A functional model from (batch, depth, rows, cols, channels), its parts in the order that `axis` says. It takes
        no weights from `model2d` by reference. Its attribute `transfer_report` tells what was mapped.

    Raises:
        ConversionError: a layer without a 3D counterpart, which is named with its type, or choices that do not fit.

    Source: Kolarik 2020, section 3.3 and eq. 3 (planar); the other mappings' sources stand in `map_kernel`.
    """
    if global_pooling not in ("slice", "volume"):
        raise ConversionError(f"global_pooling={global_pooling!r}: 'slice' or 'volume' is needed.")
    if axis not in (0, 1, 2):
        raise ConversionError(f"axis={axis!r}: depth goes to 0 (before rows), 1 (before columns) or 2 (behind them).")
    network = as_graph(model2d)
    images = [tensor for tensor in network.inputs if len(tensor.shape) == 4]
    if not images or (in_channels is not None and len(images) > 1):
        raise ConversionError(
            f"{network.name} takes {[tuple(t.shape) for t in network.inputs]}; an image (batch, rows, cols, channels) "
            "is needed, and a single one where in_channels is given."
        )
    layout = Layout(axis)
    walk = GraphWalk(
        layout,
        global_pooling == "volume",
        mapping,
        KernelMapping(depth=kernel_depth, tap=tap, alpha=alpha),
        depth_factors(network, depth_pooling),
        counterparts or {},
    )
    inputs = [input_in_3d(tensor, layout, depth, len(tensor.shape) == 4, in_channels) for tensor in network.inputs]
    model3d = walk.network(network, inputs, name or f"{network.name}_3d")
    model3d.transfer_report = TransferReport(network.name, model3d.name, tuple(walk.rows))
    return model3d
