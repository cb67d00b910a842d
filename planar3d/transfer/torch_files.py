"""Torch state dictionaries from files: `.safetensors`, and `.pth` without executing pickled code."""

import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from planar3d.errors import WeightsError
from planar3d.extras import extra
from planar3d.transfer.guards import SizeBudget
from planar3d.wording import listed

# Keys of the state dictionary in a training checkpoint; the first one present counts.
_STATES = ("state_dict", "model")
_SAVE = "Save only the network's state_dict(), best as .safetensors."
# What NumPy has of the types in `.safetensors`, and bfloat16; 8 and 4 bits need scales, which are named differently.
_READABLE = re.compile(r"B?F16|F32|F64|[IU]\d+|BOOL")
_DENSE = "Save the weights as dense float32 tensors."


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a `.safetensors` file, by torch's names and in its order of axes; half precision as float32.

    A `Planar3DError` if safetensors cannot be imported, or the file declares impossible sizes.
    """
    with extra("safetensors"):
        import ml_dtypes  # noqa: F401  # with which NumPy has bfloat16
        from safetensors import safe_open
    arrays, budget = {}, SizeBudget(path)
    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 (not a dictionary)
            stored = file.get_slice(name)
            if not _READABLE.fullmatch(stored.get_dtype()):
                raise WeightsError(f"{path}: {name} has {stored.get_dtype()} values. {_DENSE}")
            budget.take(4 * math.prod(stored.get_shape()), name)
            array = file.get_tensor(name)
            half = array.dtype.itemsize < 4 and array.dtype.kind not in "iub"
            arrays[name] = array.astype(np.float32) if half else array
    return arrays


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a file of torch's, as `read_safetensors` does, with `weights_only=True`: no code.

    Raises:
        Planar3DError: torch cannot be imported.
        WeightsError: the file has anything except tensors and numbers, such as a pickled network, has several state
            dictionaries, or declares impossible sizes.
    """
    with extra("torch"):
        from torch import Tensor, load, strided
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = SizeBudget(path)
            for member in archive.infolist():
                unpacked.take(member.file_size, member.filename)
                if member.filename.endswith("/constants.pkl"):
                    raise WeightsError(
                        f"{path} is a TorchScript program, which is not run. Save its weights in torch: "
                        "torch.save(torch.jit.load(file).state_dict(), 'weights.pth')."
                    )
    else:
        with path.open("rb") as file:
            if file.read(1) != pickle.PROTO:
                raise WeightsError(f"{path} is not a file that torch.save wrote; get it again from its source.")
    try:
        content = load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} has more than tensors, and other objects in a pickle could run code; nothing was loaded. {_SAVE}"
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path} has a {type(content).__name__} instead of a state dictionary of named tensors. {_SAVE}"
        )
    arrays, budget = {}, SizeBudget(path)
    for name, tensor in _state_in(content, Tensor, path).items():
        if isinstance(tensor, Tensor):
            # A tensor may repeat one number along its axes, so its size is independent of its size on disk.
            budget.take(4 * tensor.numel(), str(name))
            dense = tensor.layout == strided and tensor.device.type == "cpu"
            if not dense or tensor.is_quantized or tensor.is_complex():
                raise WeightsError(f"{path}: {name} is not a plain dense tensor. {_DENSE}")
            half = tensor.is_floating_point() and tensor.itemsize < 4
            arrays[str(name)] = (tensor.float() if half else tensor).detach().numpy()
    if not arrays:
        raise WeightsError(f"{path} has no named tensors; it has: {listed([*map(str, content)])}. {_SAVE}")
    return arrays


def _state_in(content: Mapping[str, Any], tensor: Any, path: Path) -> Mapping[str, Any]:
    """The state dictionary in a checkpoint: under one of `_STATES`, the checkpoint itself, or the only one in it."""

    def has_kernels(state: Mapping[str, Any]) -> bool:  # a loss or a random state beside them may be a tensor too
        return any(isinstance(value, tensor) and value.ndim > 1 for value in state.values())

    inner = {name: value for name, value in content.items() if isinstance(value, Mapping)}
    named = [name for name in _STATES if name in inner]
    if not named and not has_kernels(content):
        named = [name for name, value in inner.items() if has_kernels(value)]
        named = named or [n for n, value in inner.items() if any(isinstance(value.get(s), Mapping) for s in _STATES)]
        if len(named) > 1:
            raise WeightsError(
                f"{path} has {len(named)} state dictionaries: {', '.join(map(str, named))}. Save only one of them."
            )
    return _state_in(inner[named[0]], tensor, path) if named else content


# By suffix, the reader of a file, and the library that it imports, which takes longer than reading.
_TORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar")
TORCH_READERS = {".safetensors": read_safetensors, **dict.fromkeys(_TORCH, read_torch)}
LIBRARIES = {".safetensors": "safetensors", **dict.fromkeys(_TORCH, "torch")}
