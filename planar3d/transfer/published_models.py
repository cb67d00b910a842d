"""Trained networks by name: search paths of their files, and their expected digests."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from planar3d.errors import WeightsError
from planar3d.transfer.digests import fault
from planar3d.transfer.download import cache_folder, download

TABLE = Path(__file__).with_name("published_models.json")
_INSTALLED = Path(__file__).parents[1] / "weights"  # where setup.py puts them
_CHECKOUT = Path(__file__).parents[2] / "weights"
# Locations of a release's files: `zenodo:RECORD`, or `huggingface:OWNER/NAME@REVISION`.
_HOSTS = {"zenodo": "https://zenodo.org/records/{}/files", "huggingface": "https://huggingface.co/{}/resolve/{}"}


@dataclass(frozen=True)
class PublishedModel:
    """A line of the table of published models."""

    file: str  # the name of its weights file
    sha256: str  # the file's digest
    bytes: int  # that file's size
    licence: str  # of the weights
    installed: bool = True  # whether the package includes it; earlier versions are loaded from a folder or a download
    release: str | None = None  # download location, in the form of PLANAR3D_RELEASE; None without one
    card: Mapping[str, Any] = field(default_factory=dict)  # what was measured later than the card in the file


@cache
def published_models() -> dict[str, PublishedModel]:
    """The published models by name."""
    return {name: PublishedModel(**line) for name, line in json.loads(TABLE.read_text(encoding="utf-8")).items()}


def card_since(sha256: str) -> Mapping[str, Any]:
    """The statements on a published file that its own card does not have, by the file's digest."""
    return next((model.card for model in published_models().values() if model.sha256 == sha256), {})


def find_model(model: str | os.PathLike[str]) -> Path:
    """Find a weights file: a given file, or else the published model with that name.

    Published models are searched in the folder PLANAR3D_WEIGHTS, the installed package or the checkout's `weights/`,
    the user's cache, and then, unless PLANAR3D_OFFLINE is set, in the release in PLANAR3D_RELEASE or the table, and
    downloaded into the cache. The first file found must have the table's SHA-256.

    Raises:
        WeightsError: the name is a folder, or neither a file nor a published model; or the published model is not
            found, or its file is another one.
    """
    if not isinstance(model, str | os.PathLike):
        raise WeightsError(f"A weights file, or the name of a published model, is needed; got {type(model).__name__}.")
    if Path(model).is_file():
        return Path(model)
    table, name = published_models(), os.fspath(model)
    if name not in table:
        if name and Path(name).exists():
            raise WeightsError(f"{name} is a folder or device, not a file; name the weights file itself.")
        raise WeightsError(
            f"{name or 'An empty name'} does not exist; name a weights file, or a published model: {', '.join(table)}."
        )
    named = os.environ.get("PLANAR3D_WEIGHTS")
    for folder in [*([Path(named).expanduser()] if named else []), _INSTALLED, _CHECKOUT, cache_folder()]:
        path = folder / table[name].file
        if path.is_file():
            if wrong := fault(path, f"sha256:{table[name].sha256}"):
                raise WeightsError(
                    f"{path} is not the published model {name}: {wrong}. It is damaged or of another version; get it "
                    "again and replace this file, or use it anyway by giving its path."
                )
            return path
    return _downloaded(name, table[name])


def _downloaded(name: str, published: PublishedModel) -> Path:
    release = os.environ.get("PLANAR3D_RELEASE") or published.release
    path = cache_folder() / published.file
    reason = "neither PLANAR3D_RELEASE nor the table of published models has an address to download it from"
    if release:
        try:
            download(f"{_address(release)}/{published.file}", path, f"sha256:{published.sha256}")
            return path
        except WeightsError as error:
            reason = str(error).removesuffix(".")
    raise WeightsError(
        f"The published model {name} is not on this machine, and {reason}. Put {published.file} "
        f"({published.bytes / 1e6:.1f} MB) into {path.parent}, or into a folder named by PLANAR3D_WEIGHTS."
    )


def _address(release: str) -> str:
    host, _, place = release.partition(":")
    if host not in _HOSTS:
        return release.rstrip("/")
    name, _, revision = place.partition("@")
    return _HOSTS[host].format(name, revision or "main")
