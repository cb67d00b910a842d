"""Formats of weights files, identified by content: only arrays are read, nothing is executed or unpickled."""

import math
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any, cast

import h5py
import numpy as np

from planar3d.errors import Planar3DError, WeightsError
from planar3d.scans.formats import LOOK, stand_in
from planar3d.transfer import keras2_layout, keras3_layout
from planar3d.transfer.digests import digest_of_all
from planar3d.transfer.guards import NUMBERS, SIGNATURE, SizeBudget, opened, texts
from planar3d.transfer.metadata import CARD, metadata_of, read_configuration
from planar3d.transfer.onnx_initializers import read_onnx
from planar3d.transfer.torch_files import TORCH_READERS
from planar3d.wording import counted, listed

Arrays = dict[str, np.ndarray]
FORMATS = (
    ".h5 of Keras 2 or 3, .weights.h5, .keras, .npz, .onnx, .safetensors, .pth, .pt, .bin, .ckpt and .tar of torch"
)

_ZIP_SIGNATURE = b"PK\x03\x04"
_NPY_HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# As written by NumPy and Keras; LZMA would allow a file of a few bytes to require gigabytes.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_directly(path: Path) -> Arrays:
    """Read the arrays of a rehearsed file or one written by this process; use `read_arrays` for all others.

    Arguments, result and errors as there, without the limits that need another process.
    """
    try:
        arrays = _reader(path)(path)
    except Planar3DError as error:
        if str(path) in str(error):
            raise
        raise WeightsError(f"{path}: {error}") from error  # of an array, by its name in the file, or a missing package
    except Exception as error:  # parsers raise different errors for damaged files
        said = f"{type(error).__name__}: {error}".partition("\n")[0]  # torch lists the places in its code too
        raise WeightsError(
            f"{path} cannot be read as weights ({said}). It is damaged or has another format; supported: {FORMATS}."
        ) from error
    if not arrays:
        raise WeightsError(f"{path} has no weights; supported formats: {FORMATS}.")
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise WeightsError(
            f"{path}: {broken[0]} has values that are not finite ({len(broken)} of {counted(arrays, 'array')}). The "
            "training diverged or the file is damaged; train again, or get the file again from its source."
        )
    return arrays


def _reader(path: Path) -> Callable[[Path], Arrays]:
    with path.open("rb") as file:
        start = file.read(LOOK)
    if instead := stand_in(path, start):
        raise WeightsError(f"{path} is not a weights file: it is {instead}")
    if not start:
        raise WeightsError(f"{path} is empty; get it again. Supported formats: {FORMATS}.")
    if start.startswith(SIGNATURE):
        return _read_hdf5
    # By suffix as well: torch writes a zip archive, like NumPy and Keras, or a plain pickle.
    if path.suffix in TORCH_READERS and not _is_array_archive(path):
        return TORCH_READERS[path.suffix]
    if start.startswith(_ZIP_SIGNATURE):
        return _read_zip
    if path.suffix == ".onnx":
        return read_onnx
    raise WeightsError(f"{path} has an unknown format; supported: {FORMATS}.")


def _is_array_archive(path: Path) -> bool:
    """Whether a file is a zip archive of NumPy or Keras, which has no pickle, as torch's have."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return not any(name.endswith(".pkl") for name in archive.namelist())


def _read_hdf5(path: Path) -> Arrays:
    with opened(path) as file:
        if configuration := "".join(texts(file, "model_config")):
            read_configuration(configuration, path)
        group = file.get("model_weights", file)
        if isinstance(group, h5py.Group) and {"layer_names", "layer_names0"} & group.attrs.keys():
            arrays = keras2_layout.read_legacy(group)
        else:
            arrays = keras3_layout.read_variables(file, path)
        stated = metadata_of(file, path).get(CARD, {}).get("weights_sha256")
    if stated is not None and stated != (found := digest_of_all(arrays)):
        raise WeightsError(
            f"{path} is damaged or was altered: its arrays have the SHA-256 {found}, but its model card states "
            f"{stated}. Get it again from its source."
        )
    return arrays


def _read_zip(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        _refuse_ill_intent(archive, path)
        if keras3_layout.WEIGHTS_MEMBER in members:
            return keras3_layout.read_archive(archive, path)
        stored = [name for name in members if name.endswith(".npy")]
        if not stored:
            raise WeightsError(
                f"{path} is a zip archive without arrays; it has: {listed(members, 3)}. If torch.save wrote it, rename "
                "it to end in .pth; if it is a program of torch.export or torch.jit, save its state_dict in torch."
            )
        budget = SizeBudget(path)
        arrays = {name: _read_npy(archive, name, path, budget) for name in stored}
    return {name.removesuffix(".npy").removesuffix(":0"): array for name, array in arrays.items()}


def _refuse_ill_intent(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse suspicious members; members are only read into memory by name, but no valid file has these."""
    seen: set[str] = set()
    for member in archive.infolist():
        name = member.filename
        place = PureWindowsPath(name)  # recognizes separators and roots of every system
        faults = {
            "points outside the archive": place.anchor or ".." in place.parts,
            "is a link": stat.S_ISLNK(member.external_attr >> 16),
            "appears twice": name in seen,
            "has a compression that NumPy and Keras do not use": member.compress_type not in _COMPRESSIONS,
        }
        seen.add(name)
        for fault, found in faults.items():
            if found:
                raise WeightsError(f"{path}: its member {name!r} {fault}. Do not use this file.")


def _read_npy(archive: zipfile.ZipFile, name: str, path: Path, budget: SizeBudget) -> np.ndarray:
    size = archive.getinfo(name).file_size
    budget.take(size, name)
    # NumPy allocates the declared size before reading, so the header is checked first.
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        if version not in _NPY_HEADERS:
            raise WeightsError(f"{path}: {name} has npy version {version}; only versions 1.0 and 2.0 are read.")
        shape, _, dtype = _NPY_HEADERS[version](file)
    if dtype.hasobject:
        raise WeightsError(
            f"{path}: {name} has pickled Python objects, which could run code; only arrays of numbers are read. Save "
            "it again with numbers only."
        )
    if dtype.kind not in NUMBERS or min(shape, default=0) < 0:
        raise WeightsError(f"{path}: {name} has {dtype} of shape {shape} instead of numbers; it is not a weights file.")
    declared = math.prod(shape) * dtype.itemsize
    if declared > size:
        raise WeightsError(f"{path}: {name} declares {declared:,} bytes but has {size:,}; the file is damaged.")
    with archive.open(name) as file:
        return cast(np.ndarray, np.lib.format.read_array(file, allow_pickle=False))
