"""Digests of files and arrays, and ImageNet's VGG-16 recognized by them array by array."""

import hashlib
import os
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

import numpy as np

IMAGENET = "ImageNet VGG-16"
OWN = "the user's own"


@cache
def _table() -> dict[str, tuple[str, tuple[int, ...]]]:
    lines = resources.files("planar3d.transfer").joinpath("vgg16_imagenet_sha256.txt").read_text("utf-8").splitlines()
    records = [line.split(maxsplit=2) for line in lines if not line.startswith("#")]
    return {name: (digest, tuple(map(int, re.findall(r"\d+", shape)))) for digest, name, shape in records}


def vgg16_digests() -> dict[str, str]:
    """SHA-256 of each of the 26 arrays of Keras' ImageNet VGG-16 convolutions, by `layer/weight`, first layer first."""
    return {name: digest for name, (digest, _) in _table().items()}


def vgg16_kernel_shapes() -> dict[str, tuple[int, ...]]:
    """Shapes (kh, kw, cin, cout) of VGG-16's thirteen kernels by layer, first layer first."""
    return {name.removesuffix("/kernel"): shape for name, (_, shape) in _table().items() if name.endswith("/kernel")}


def file_digest(path: str | os.PathLike[str], algorithm: str) -> str:
    """The hexadecimal digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def fault(path: str | os.PathLike[str], digest: str) -> str | None:
    """What is wrong with a file that should have a digest, `sha256:` or `md5:` and all its digits or the first ones."""
    algorithm, _, digits = digest.partition(":")
    found = file_digest(path, algorithm)
    name = algorithm.upper().replace("SHA", "SHA-")
    return None if found.startswith(digits) else f"its {name} is {found}, and {digits} was expected"


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


def differing(arrays: Mapping[str, np.ndarray], names: list[str]) -> list[str]:
    """Those of `names` that are missing in `arrays` or are not ImageNet's."""
    return [name for name in names if name not in arrays or digest(arrays[name]) != vgg16_digests()[name]]


def identify(arrays: Mapping[str, np.ndarray]) -> str:
    """Tell whose VGG-16 convolutions these are, by digest.

    Args:
        arrays: by `layer/weight`, 2D or planar kernels; other layers do not count.

    Returns:
        `"ImageNet VGG-16"` if there are convolutions named as VGG-16's and all of them are ImageNet's, else
        `"the user's own"`.
    """
    names = [name for name in vgg16_digests() if name in arrays]
    return IMAGENET if names and not differing(arrays, names) else OWN
