"""Published weight files by digest: network, licence, expected input, and download address."""

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from planar3d.errors import WeightsError, path_of
from planar3d.transfer.digests import fault, file_digest
from planar3d.transfer.download import cache_folder, download

TABLE = Path(__file__).with_name("known_files.json")

# The input that a network with the file's weights expects.
INPUTS = {
    "imagenet": "RGB, (x / 255 - mean) / std of ImageNet",
    "lite": "RGB, (x - 127) / 128",
    "caffe": "BGR, x - (103.939, 116.779, 123.68)",
    "grey levels": "RGB, 0 to 255; the network normalizes them itself",
    # keras.applications adds a layer for its own file, 1 / sqrt(std) after the normalization, which others do not have.
    "grey levels, rescaled": "RGB, 0 to 255, in the network that weights='imagenet' builds",
}


@dataclass(frozen=True)
class KnownFile:
    """An entry in the table of known files."""

    network: str  # name of the network in Keras
    origin: str  # publisher, and the published name
    licence: str  # of the weights, if the publisher states one
    input: str  # a key of `INPUTS`
    # `sha256:` or, for Keras' files, `md5:`, followed by all digits, or by the first eight if the publisher gives no
    # more. Eight digits detect damage but not forgery.
    digest: str
    url: str | None  # download address of the file alone, if any


@cache
def known_files() -> dict[str, KnownFile]:
    """The known files by name."""
    return {name: KnownFile(**line) for name, line in json.loads(TABLE.read_text(encoding="utf-8")).items()}


def recognize(path: str | os.PathLike[str], sha256: str) -> KnownFile | None:
    """The known file with this content and SHA-256, whatever its name; None for a file of unknown origin."""
    digests = f"sha256:{sha256}", f"md5:{file_digest(path, 'md5')}"
    return next((known for known in known_files().values() if any(d.startswith(known.digest) for d in digests)), None)


def fetch_known(name: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """Find a known file in a folder, or download it there; its digest is checked in both cases.

    Args:
        name: name of the file in the table, e.g. `resnet34-b627a593.pth`.
        folder: default: the user's cache.

    Returns:
        The file's path.

    Raises:
        WeightsError: the name is unknown, the file has another digest or no download address, PLANAR3D_OFFLINE is set,
            or the download fails.
    """
    if name not in list(known_files()):
        raise WeightsError(f"{name} is not a known weights file; choose one of: {', '.join(known_files())}.")
    known = known_files()[name]
    path = (cache_folder() if folder is None else path_of(folder, "A folder", WeightsError)) / name
    if path.is_file():
        if wrong := fault(path, known.digest):
            raise WeightsError(f"{path} is not {known.origin}: {wrong}. Remove it or rename it.")
        return path
    if known.url is None:
        raise WeightsError(f"{path} does not exist, and planar3d cannot download it; it comes from {known.origin}.")
    download(known.url, path, known.digest)
    return path
