"""Torch state dictionaries from files: `.safetensors`, and `.pth` without executing pickled code."""

import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from planar3d.errors import WeightsError
from planar3d.transfer.size_budget import SizeBudget

# Keys of the state dictionary in a training checkpoint, besides epoch and optimizer.
_STATES = ("state_dict", "model")


def read_safetensors(path: Path, budget: SizeBudget) -> dict[str, np.ndarray]:
    """Read the tensors of a `.safetensors` file.

    Returns:
        Arrays by torch's names (`layer1.0.conv1.weight`), in torch's order of axes; half precision is converted to
        float32.

    Raises:
        WeightsError: safetensors is not installed, or the file declares impossible sizes.
    """
    try:
        import ml_dtypes  # noqa: F401  # with which NumPy has bfloat16
        from safetensors import safe_open
    except ImportError:
        raise WeightsError(
            f"{path}: reading .safetensors files needs safetensors; pip install 'planar3d[safetensors]'."
        ) from None
    arrays = {}
    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 (not a dictionary)
            budget.take(4 * math.prod(file.get_slice(name).get_shape()), name)
            array = file.get_tensor(name)
            half = array.dtype.itemsize < 4 and array.dtype.kind not in "iub"
            arrays[name] = array.astype(np.float32) if half else array
    return arrays


def read_torch(path: Path, budget: SizeBudget) -> dict[str, np.ndarray]:
    """Read the tensors of a `.pth` or `.pt` file with torch's `weights_only=True`: tensors and numbers, no code.

    Args:
        path: a state dictionary, or a checkpoint with one under `state_dict` or `model`.

    Returns:
        As `read_safetensors`.

    Raises:
        WeightsError: torch is not installed, or the file has anything except tensors and numbers, such as a pickled
            network, or declares impossible sizes.
    """
    try:
        import torch
    except ImportError:
        raise WeightsError(
            f"{path}: reading .pth files needs torch; pip install 'planar3d[torch]', or save the weights as "
            ".safetensors, which does not need torch."
        ) from None
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = SizeBudget(path)
            for member in archive.infolist():
                unpacked.take(member.file_size, member.filename)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} has more than tensors, and other objects in a pickle could run code; nothing was loaded. Save "
            "only the network's state_dict(), best as .safetensors."
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} has a {type(content).__name__} instead of a state dictionary of named tensors.")
    state = next((content[name] for name in _STATES if isinstance(content.get(name), Mapping)), content)
    arrays = {}
    for name, tensor in state.items():
        if isinstance(tensor, torch.Tensor):
            # A tensor may repeat one number along its axes, so its size is independent of its size on disk.
            budget.take(4 * tensor.numel(), name)
            if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
                raise WeightsError(
                    f"{path}: {name} is not a plain dense tensor. Save the weights as dense float32 tensors."
                )
            half = tensor.is_floating_point() and tensor.itemsize < 4
            arrays[name] = (tensor.float() if half else tensor).detach().numpy()
    return arrays


# By suffix, the reader of a file, and the library that it imports, which takes longer than reading.
TORCH_READERS = {".safetensors": read_safetensors, ".pth": read_torch, ".pt": read_torch}
LIBRARIES = {".safetensors": "safetensors", ".pth": "torch", ".pt": "torch"}
