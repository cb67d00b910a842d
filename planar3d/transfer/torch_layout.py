"""Conversion of torch's order of axes and names of weights to Keras'."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from planar3d.errors import WeightsError
from planar3d.sections import check_choice
from planar3d.transfer.torch_names import Names, kind_of

Change = Callable[[np.ndarray], np.ndarray]


def _as_it_is(array: np.ndarray) -> np.ndarray:
    return array


def _convolution(kernel: np.ndarray) -> np.ndarray:
    """(cout, cin, kh, kw) → (kh, kw, cin, cout)."""
    return kernel.transpose(2, 3, 1, 0)


def _depthwise(kernel: np.ndarray) -> np.ndarray:
    """(channels, 1, kh, kw) → (kh, kw, channels, 1)."""
    return kernel.transpose(2, 3, 0, 1)


def _dense(kernel: np.ndarray) -> np.ndarray:
    """(out, in), or (out, in, 1, 1) for a convolution → (in, out)."""
    return kernel.reshape(len(kernel), -1).T


def _dense_on_7x7(kernel: np.ndarray) -> np.ndarray:
    """(out, channels · 7 · 7), channels flattened first → (7 · 7 · channels, out), channels flattened last."""
    return kernel.reshape(len(kernel), -1, 7, 7).transpose(2, 3, 1, 0).reshape(-1, len(kernel))


def _with_bias(change: Change) -> dict[str, tuple[str, Change]]:
    return {"weight": ("kernel", change), "bias": ("bias", _as_it_is)}


# For each weight of a kind of layer: its name in Keras, and the change of axes.
KINDS: dict[str, dict[str, tuple[str, Change]]] = {
    "convolution": _with_bias(_convolution),
    "depthwise": _with_bias(_depthwise),
    "dense": _with_bias(_dense),
    "dense on 7×7": _with_bias(_dense_on_7x7),
    "normalization": {
        "weight": ("gamma", _as_it_is),
        "bias": ("beta", _as_it_is),
        "running_mean": ("moving_mean", _as_it_is),
        "running_var": ("moving_variance", _as_it_is),
    },
}
# A counter in torch's batch normalization, not needed for inference.
_COUNTER = "num_batches_tracked"


def keras_arrays(state: Mapping[str, np.ndarray], names: Names, layout: str = "torch") -> dict[str, np.ndarray]:
    """Convert a torch state dictionary to Keras' names and order of axes.

    Args:
        state: by torch's names: `layer1.0.conv1.weight`, …; or all with the name of what held the network in front:
            `module.`, `backbone.`, ….
        names: the network's table, as from `torch_names`.
        layout: order of axes of the arrays: `"torch"`, or `"keras"` if only the names are torch's.

    Returns:
        By `layer/weight`. Unknown arrays keep their names, for the report of unused arrays.

    Raises:
        ValueError: an unknown layout.
        WeightsError: the axes of an array cannot be those of its layer, or the network is in the file more than once.
    """
    check_choice("layout", layout, ("torch", "keras"), ValueError)
    prefix = prefix_of(state, names)
    arrays = {}
    for name, array in state.items():
        layer, _, weight = name.removeprefix(prefix).rpartition(".")
        if weight == _COUNTER:
            continue
        target = names.get(layer)
        if target is None or weight not in KINDS[kind_of(target)]:
            arrays[name] = array
            continue
        label, change = KINDS[kind_of(target)][weight]
        try:
            arrays[f"{target}/{label}"] = array if layout == "keras" else change(array)
        except ValueError as error:
            raise WeightsError(
                f"{name} has the shape {array.shape}, which no {kind_of(target)} layer of torch has; "
                "choose weights of this network."
            ) from error
    return arrays


def prefix_of(state: Iterable[str], names: Names) -> str:
    """What is in front of the network's names: nothing if any layer has its own name, else what most layers have."""
    found: Counter[str] = Counter()
    for layer in {name.rpartition(".")[0] for name in state}:
        parts = layer.split(".")
        tails = [".".join(parts[start:]) for start in range(len(parts))]
        found.update(layer.removesuffix(tail) for tail in tails if tail in names)
    most = [prefix for prefix, count in found.items() if count == max(found.values())]
    # Blocks of other networks have a few layers of the same names: `conv1`, `bn1`.
    few = max(found.values(), default=0) < len(set(names.values())) / 4
    if not most or "" in found or (len(most) > 1 and few):
        return ""
    if len(most) > 1:
        raise WeightsError(
            f"The network is in the file {len(most)} times, with {' and '.join(sorted(most))} in front of its names. "
            "Save the state dictionary of the one that you want."
        )
    return most[0]
