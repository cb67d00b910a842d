"""Digests of files and arrays, and VGG-16 recognized by the digests of its arrays."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np

from planar3d.errors import ScanError


class _VGG16:
    """VGG-16's ImageNet convolutions, by a file with one line per array, first layer first: SHA-256, name and shape."""

    @cached_property
    def _table(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        text = resources.files("planar3d.transfer").joinpath("vgg16_imagenet_sha256.txt").read_text("utf-8")
        records = [line.split(maxsplit=2) for line in text.splitlines() if not line.startswith("#")]
        return {name: (digest, tuple(map(int, re.findall(r"\d+", shape)))) for digest, name, shape in records}

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each array by `layer/weight`, first layer first."""
        return {name: digest for name, (digest, _) in self._table.items()}

    @cached_property
    def kernel_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes (kh, kw, cin, cout) of the kernels by layer, first layer first."""
        found = self._table.items()
        return {name.removesuffix("/kernel"): shape for name, (_, shape) in found if name.endswith("/kernel")}

    def differing(self, arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> list[str]:
        """The `names` missing in `arrays` or different from the published arrays."""
        return [name for name in names if name not in arrays or digest(arrays[name]) != self.digests[name]]


VGG16 = _VGG16()


def file_digest(path: str | os.PathLike[str], algorithm: str) -> str:
    """The hexadecimal digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def fault(path: str | os.PathLike[str], digest: str) -> str | None:
    """The mismatch of a file with a digest, `sha256:` or `md5:` and all or the first digits; None if it matches."""
    algorithm, _, digits = digest.partition(":")
    found = file_digest(path, algorithm)
    name = algorithm.upper().replace("SHA", "SHA-")
    return None if found.startswith(digits) else f"its {name} is {found}; {digits} was expected"


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content."""
    return file_digest(path, "sha256")


def files_sha256(files: Sequence[Path]) -> str:
    """The digest of a file, or of the digests of several, in the order of their names."""
    for path in files:
        if not path.is_file():
            raise ScanError(f"{path} does not exist.")
    digests = [file_sha256(path) for path in sorted(files)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def stamp(files: Iterable[Path], names: Iterable[Path] = ()) -> str:
    """A digest of names, and of the places, sizes and times of files; empty if a file cannot be found.

    The time of the change of its entry also tells a file that was moved into place with its own date.
    """
    with suppress(OSError):
        states = [(str(file.absolute()), file.stat()) for file in files]
        found = [(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for path, state in states]
        return hashlib.sha256(repr([*map(str, names), *found]).encode()).hexdigest()
    return ""


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array as float32, little-endian, in C order.

    A 2D kernel and its planar kernel have the same bytes (Kolarik 2020, eq. 3) and so the same digest.
    """
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<f4").data).hexdigest()


def digest_of_all(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of named arrays, independent of file and order: of lines `<name> <digest>`, sorted by name."""
    lines = [f"{name} {digest(arrays[name])}\n" for name in sorted(arrays)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def identify(arrays: Mapping[str, np.ndarray]) -> str:
    """`"ImageNet VGG-16"` if there are convolutions, 2D or planar, with names of VGG-16, and all are ImageNet's.

    Else `"the user's own"`.
    """
    names = VGG16.digests.keys() & arrays
    return "ImageNet VGG-16" if names and not VGG16.differing(arrays, names) else "the user's own"


def layers_by_shapes(shapes: list[tuple[int, ...]]) -> list[str]:
    """The layers of VGG-16 whose kernels have these shapes, from its first on; else none."""
    layers = dict(list(VGG16.kernel_shapes.items())[: len(shapes)])
    return list(layers) if list(layers.values()) == shapes else []
