"""A converted network as a file, with a card that records the origin of its weights."""

from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

import planar3d
from planar3d.conversion.transfer_report import TransferReport
from planar3d.errors import ConversionError, path_of
from planar3d.files import require_room, write_json, written_beside
from planar3d.transfer.digests import digest_of_all, file_sha256

SUFFIXES = (".keras", ".weights.h5")


def save_converted(model3d: keras.Model, path: str | Path, *, provenance: str, licence: str) -> Path:
    """Write a converted network, and its card as `<name>.card.json` next to it.

    Args:
        model3d: as `convert` returned it.
        path: `.keras` for the whole network, `.weights.h5` for its weights.
        provenance: origin of the 2D weights, in words.
        licence: licence of the 2D weights, which also applies to the converted weights.

    Returns:
        The card's path. The card has provenance and licence, the digests of the file and of its arrays, the versions of
        the packages, and the transfer report.

    Raises:
        ConversionError: the suffix is wrong, provenance or licence is missing, or the network was not converted.
    """
    path = path_of(path, "The file to write", ConversionError)
    suffix = next((ending for ending in SUFFIXES if path.name.endswith(ending)), None)
    report = getattr(model3d, "transfer_report", None)
    if suffix is None:
        raise ConversionError(f"{path}: a converted network is saved as {' or '.join(SUFFIXES)}.")
    if not isinstance(report, TransferReport):
        raise ConversionError(
            f"{getattr(model3d, 'name', model3d)} has no transfer report: it was not made by convert in this session."
        )
    if not all(isinstance(text, str) and text.strip() for text in (provenance, licence)):
        raise ConversionError("Name the source (provenance) and the licence of the 2D weights.")
    arrays = {weight.path: np.asarray(keras.ops.convert_to_numpy(weight), np.float32) for weight in model3d.weights}
    with written_beside(path) as temporary:
        require_room(path, sum(array.nbytes for array in arrays.values()))
        (model3d.save if suffix == ".keras" else model3d.save_weights)(temporary)
    card = path.with_name(path.name.removesuffix(suffix) + ".card.json")
    write_json(
        card,
        {
            "name": model3d.name,
            "provenance": provenance,
            "licence": licence,
            "file": path.name,
            "sha256": file_sha256(path),
            "weights_sha256": digest_of_all(arrays),
            "versions": {"planar3d": planar3d.__version__, "keras": version("keras")},
            "transfer": report.to_json(),
        },
    )
    return card
