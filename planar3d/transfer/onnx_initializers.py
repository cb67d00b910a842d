"""Convolution kernels from the initializers of an ONNX file; its graph is only read for their order."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from planar3d.errors import WeightsError
from planar3d.extras import extra
from planar3d.transfer.digests import layers_by_shapes
from planar3d.transfer.guards import NUMBERS, SizeBudget

# Axes of a 3D kernel.
_MOST_AXES = 5


def read_onnx(path: Path) -> dict[str, np.ndarray]:
    """Read the convolutions of an ONNX file in the order of its graph, without dense layers.

    Returns:
        `layer/kernel` (kh, kw, cin, cout) and `layer/bias` (cout,). Convolutions with the shapes of VGG-16 and without
        normalization get the names of its layers; others are named after their initializer (`conv1.weight` →
        `conv1/kernel`).

    Raises:
        Planar3DError: onnx cannot be imported.
        WeightsError: the weights are outside the file.
    """
    with extra("onnx"):
        from onnx import TensorProto, load, numpy_helper
    budget = SizeBudget(path)
    graph = load(path, load_external_data=False).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], value.t) for value in node.attribute if value.name == "value")
        elif node.op_type == "Identity" and node.input[0] in tensors:  # torch stores equal arrays once
            tensors[node.output[0]] = tensors[node.input[0]]

    def array(name: str) -> np.ndarray:
        tensor = tensors[name]
        if tensor.data_location == TensorProto.EXTERNAL:
            raise WeightsError(
                f"{path}: {name} is stored in another file; weights must be in the file itself. Save the model again "
                "without external data (torch.onnx.export: external_data=False)."
            )
        if len(tensor.dims) > _MOST_AXES or min(tensor.dims, default=0) < 0:
            raise WeightsError(f"{path}: {name} has an impossible shape; the file is damaged.")
        budget.take(math.prod(tensor.dims) * 4, name)
        found = numpy_helper.to_array(tensor)
        if tensor.data_type == TensorProto.BFLOAT16:
            found = found.astype(np.float32)
        if found.dtype.kind not in NUMBERS:
            raise WeightsError(f"{path}: {name} has {found.dtype} instead of numbers; it is not a weights file.")
        return found

    convolutions: list[Any] = [n for n in graph.node if n.op_type == "Conv" and n.input[1] in tensors]
    # From (cout, cin, *window) to (*window, cin, cout).
    kernels = [np.ascontiguousarray(np.moveaxis(array(node.input[1]), (0, 1), (-1, -2))) for node in convolutions]
    normalized = any(node.op_type.endswith("Normalization") for node in graph.node)  # VGG-16 is without
    layers = [] if normalized else layers_by_shapes([kernel.shape for kernel in kernels])
    own = [node.input[1].removesuffix(":0").removesuffix(".weight").removesuffix("/kernel") for node in convolutions]
    layers = layers or [name.replace("/", ".") for name in own]
    arrays = {}
    for layer, node, kernel in zip(layers, convolutions, kernels, strict=True):
        arrays[f"{layer}/kernel"] = kernel
        if len(node.input) > 2 and node.input[2] in tensors:
            arrays[f"{layer}/bias"] = array(node.input[2])
    return arrays
