"""Digests of files and arrays, and VGG-16 recognized by the digests of its arrays."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from planar3d.errors import ScanError


@cache
def vgg16_arrays() -> dict[str, tuple[str, tuple[int, ...]]]:
    """SHA-256 and shape of each array of VGG-16's ImageNet convolutions by `layer/weight`, first layer first."""
    text = Path(__file__).with_name("vgg16_imagenet_sha256.txt").read_text("utf-8")
    records = [line.split(maxsplit=2) for line in text.splitlines() if not line.startswith("#")]
    return {name: (digest, tuple(map(int, re.findall(r"\d+", shape)))) for digest, name, shape in records}


def differing_from_vgg16(arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> list[str]:
    """The `names` missing in `arrays` or different from VGG-16's ImageNet arrays."""
    return [name for name in names if name not in arrays or digest(arrays[name]) != vgg16_arrays()[name][0]]


def file_digest(path: str | os.PathLike[str], algorithm: str) -> str:
    """The hexadecimal digest of a file's content."""
    with open(path, "rb") as file:
        try:
            return hashlib.file_digest(file, algorithm).hexdigest()
        except OSError as error:
            error.filename = str(path)  # reading names no file
            raise


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
    names = vgg16_arrays().keys() & arrays
    return "ImageNet VGG-16" if names and not differing_from_vgg16(arrays, names) else "the user's own"


def layers_by_shapes(shapes: list[tuple[int, ...]]) -> list[str]:
    """The layers of VGG-16 whose kernels have these shapes, from its first on; else none."""
    kernels = {name.removesuffix("/kernel"): shape for name, (_, shape) in vgg16_arrays().items() if len(shape) == 4}
    layers = dict(list(kernels.items())[: len(shapes)])
    return list(layers) if list(layers.values()) == shapes else []
