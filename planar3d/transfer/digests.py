"""Digests of files and arrays, and networks that are recognized by them array by array."""

import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from importlib import resources

import numpy as np

OWN = "the user's own"


class Recognized:
    """A network whose published arrays are told one by one.

    Args:
        whose: the arrays are, in words.
        parts: of a network that they are, in words.
        table: a file beside this one, a line an array, first layer first: its SHA-256, its name and its shape.
    """

    def __init__(self, whose: str, parts: str, table: str) -> None:
        self.whose, self.parts, self._file = whose, parts, table

    @cached_property
    def _table(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        lines = resources.files("planar3d.transfer").joinpath(self._file).read_text("utf-8").splitlines()
        records = [line.split(maxsplit=2) for line in lines if not line.startswith("#")]
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

    def differing(self, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> list[str]:
        """Those of `names` that are missing in `arrays` or are not the published ones."""
        return [name for name in names if name not in arrays or digest(arrays[name]) != self.digests[name]]


VGG16 = Recognized("ImageNet VGG-16", "VGG-16 convolutions", "vgg16_imagenet_sha256.txt")
RECOGNIZED = (VGG16,)


def file_digest(path: str | os.PathLike[str], algorithm: str) -> str:
    """The hexadecimal digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def fault(path: str | os.PathLike[str], digest: str) -> str | None:
    """What is wrong with a file that should have a digest, `sha256:` or `md5:` and all its digits or the first ones."""
    algorithm, _, digits = digest.partition(":")
    found = file_digest(path, algorithm)
    name = algorithm.upper().replace("SHA", "SHA-")
    return None if found.startswith(digits) else f"its {name} is {found}; {digits} was expected"


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content."""
    return file_digest(path, "sha256")


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array as float32, little-endian, in C order.

    A 2D kernel and the planar kernel made of it have the same bytes (Kolarik 2020, eq. 3), hence the same digest.
    """
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<f4").data).hexdigest()


def digest_of_all(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of named arrays, whatever their file and order: of a line `<name> <digest>` each, sorted by name."""
    lines = [f"{name} {digest(arrays[name])}\n" for name in sorted(arrays)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def recognized(names: Collection[str]) -> Recognized | None:
    """The network of the table that some of these arrays are named as, by `layer/weight`."""
    return next((known for known in RECOGNIZED if not known.digests.keys().isdisjoint(names)), None)


def identify(arrays: Mapping[str, np.ndarray]) -> str:
    """Tell whose arrays these are, by digest.

    Args:
        arrays: by `layer/weight`, 2D or planar kernels; layers that no network of the table has do not count.

    Returns:
        `"ImageNet VGG-16"` if there are convolutions named as VGG-16's and all of them are ImageNet's, else
        `"the user's own"`.
    """
    known = recognized(arrays)
    if known is None or known.differing(arrays, [name for name in known.digests if name in arrays]):
        return OWN
    return known.whose


def layers_by_shapes(shapes: Sequence[tuple[int, ...]]) -> list[str]:
    """The layers of the network of the table whose kernels have these shapes, from its first on; else none."""
    for known in RECOGNIZED:
        layers = dict(list(known.kernel_shapes.items())[: len(shapes)])
        if list(layers.values()) == list(shapes):
            return list(layers)
    return []
