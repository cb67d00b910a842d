"""Guards for weights files of others: no implausible sizes, and no content of other files in HDF5."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from planar3d.errors import WeightsError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# NumPy's kinds of data for weights: floats, integers and booleans.
NUMBERS = "fiub"
# For any other filter, HDF5 would look for a plugin on this machine.
_FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
# Trained weights hardly compress (less than twofold), so a file that declares twenty times its size is not valid.
_EXPANSION = 20
_ALWAYS_ALLOWED = 256 * 2**20


@dataclass
class SizeBudget:
    """The bytes that a file may still declare: twenty times its size in total, and at least 256 MiB."""

    path: Path
    taken: int = 0

    def take(self, nbytes: int, name: str) -> None:
        """Count the bytes declared by `name`; a `WeightsError` if they exceed the limit."""
        self.taken += nbytes
        size = self.path.stat().st_size
        if self.taken > max(_ALWAYS_ALLOWED, _EXPANSION * size):
            raise WeightsError(
                f"{self.path}: {name} declares {nbytes:,} bytes, far more than the file can hold ({size:,} bytes on "
                "disk). It is damaged or meant to exhaust the memory; get it again from its source."
            )


@contextmanager
def opened(path: Path, content: io.BytesIO | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file, or its content from elsewhere, for reading, after checking its links and sizes.

    Raises:
        WeightsError: a link to another file or path, a data set stored elsewhere, impossible sizes, or filters other
            than HDF5's own.
    """
    with h5py.File(content or path, "r", locking=False) as file:
        _refuse_links(file, path)
        _look_at_data(file, path)
        yield file


def read_array(dataset: h5py.Dataset, path: str) -> np.ndarray:
    """Read a data set of numbers; half precision is converted to float32.

    Keras stores bfloat16 as raw bytes, which only `.weights.h5` names.
    """
    if dataset.shape is None:
        raise WeightsError(f"{path} has no values; it is not a weights file.")
    if dataset.dtype.itemsize == 2 and (dataset.dtype.kind == "V" or dataset.attrs.get("dtype") == "bfloat16"):
        raw = np.frombuffer(np.asarray(dataset[()]).tobytes(), "<u2").astype("<u4")
        return (raw << 16).view("<f4").reshape(dataset.shape)
    if dataset.dtype.kind not in NUMBERS:
        raise WeightsError(f"{path} has {dataset.dtype} instead of numbers; it is not a weights file.")
    array = np.asarray(dataset[()])
    return array.astype(np.float32) if array.dtype == np.float16 else array


def items_in(group: h5py.Group) -> list[tuple[str, h5py.Group | h5py.Dataset]]:
    """All groups and data sets within a group, by their paths."""
    found: list[tuple[str, h5py.Group | h5py.Dataset]] = []
    group.visititems(lambda name, item: found.append((name, item)))
    return found


def texts(group: h5py.Group, name: str) -> list[str]:
    """An attribute with names, as bytes or str, whole or in Keras' numbered pieces (`layer_names0`, …)."""
    numbered = (f"{name}{number}" for number in count())
    pieces = [name] if name in group.attrs else takewhile(group.attrs.__contains__, numbered)
    values = [value for piece in pieces for value in np.ravel(group.attrs[piece])]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _refuse_links(file: h5py.File, path: Path) -> None:
    name = file.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else name)
    if name is not None:
        link: Any = file.get(name, getlink=True)
        target = f"{getattr(link, 'filename', '')} {getattr(link, 'path', '')}".strip()
        raise WeightsError(
            f"{path}: {name} is a link to {target or 'elsewhere'}; weights must be in the file itself. "
            "Do not use this file, or copy the linked arrays into it."
        )


def _look_at_data(file: h5py.File, path: Path) -> None:
    budget = SizeBudget(path)
    for name, item in items_in(file):
        if not isinstance(item, h5py.Dataset):
            continue
        if item.external or item.is_virtual:
            raise WeightsError(f"{path}: {name} is stored in another file; weights must be in the file itself.")
        creation = item.id.get_create_plist()
        filters = [creation.get_filter(number)[0] for number in range(creation.get_nfilters())]
        if not set(filters) <= set(_FILTERS):
            raise WeightsError(
                f"{path}: {name} is stored with the HDF5 filters {filters}; only {_FILTERS} (gzip, shuffle, checksum) "
                "are supported. Save it again without the others."
            )
        budget.take(math.prod(item.shape or ()) * item.dtype.itemsize, name)
        budget.take(math.prod(item.chunks or ()) * item.dtype.itemsize, f"a chunk of {name}")
