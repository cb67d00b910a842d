"""The files of a run that must stay as they were: scans, label maps, the encoder's weights, and scored masks."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from planar3d.errors import RunError, ScanError
from planar3d.files import read_json, read_rows, write_json
from planar3d.scans.image_files import files_of
from planar3d.scans.nifti import volume_of
from planar3d.transfer.digests import digest, file_sha256, files_sha256, stamp

if TYPE_CHECKING:
    from planar3d.recipes import Recipe
    from planar3d.study.run_folder import Run

LABELS, VOXELS, ALIGNED = "labels", "prepared voxels", "prepared labels"  # roles beside the names of images
MASK_SHA256 = "mask_sha256"  # the column of scores.csv with the digest of the scored mask
_WHAT_TO_DO = "Put the former file back to continue, or start a run in another folder."


def digest_sources(run: "Run", scan: str) -> dict[str, Any]:
    """Stamp and digest of the files that a scan is prepared from, by their role: an image's name, or labels."""
    # The stamp first: a file that is changed meanwhile has another one.
    return {role: {"stamp": stamp(paths), "sha256": files_sha256(paths)} for role, paths in _files(run, scan).items()}


def require_read(run: "Run", scan: str, sources: Mapping[str, Any]) -> None:
    """Raise a `ScanError` if files changed since `digest_sources`, so that what was read may be another file."""
    for role, paths in _files(run, scan).items():
        known = sources[role]
        if stamp(paths) != known["stamp"] and files_sha256(paths) != known["sha256"]:
            raise ScanError(f"{paths[0]} was changed while it was prepared. Run the same command again.")


def require_unchanged(run: "Run", scan: str) -> None:
    """Raise a `RunError` if files changed since a scan was prepared; those of the same stamp are not read.

    What `digest_sources` returned is `sources` in geometry.json; without it nothing is checked. A `ScanError` if a file
    does not exist.
    """
    prepared = run.prepared(scan) / "geometry.json"
    if not prepared.is_file():
        return
    content, known = read_json(prepared, lambda content: (content, _known(content)))
    moved = False
    for role, paths in _files(run, scan).items():
        now = stamp(paths)  # first, as above
        if role not in known or now == content["sources"][role].get("stamp"):
            continue
        if files_sha256(paths) != known[role]:
            raise RunError(f"{paths[0]} was changed after it was prepared in {prepared.parent}. {_WHAT_TO_DO}")
        content["sources"][role]["stamp"], moved = now, True
    if moved:  # so that it need not be read again
        with suppress(OSError):
            write_json(prepared, content)


def require_as_prepared(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise a `RunError` if prepared arrays, by their role, are not those that were prepared in the folder."""
    known = read_json(folder / "geometry.json", _known)
    for role in known.keys() & arrays:
        if digest(arrays[role]) != known[role]:
            raise RunError(
                f"The {role} in {folder} were changed after they were prepared. Delete {folder}, and the folders "
                "fold-* trained on it, to create them again."
            )


def require_as_scored(run: "Run", scan: str, number: int) -> None:
    """Raise a `RunError` if a fold's mask of a test scan is not the scored one, whose digest older tables lack."""
    mask, scores = run.predicted(scan, number), run.fold(number) / "scores.csv"
    known = {row.get("scan"): row.get(MASK_SHA256) for row in read_rows(scores)}.get(scan)
    if known and file_sha256(mask) != known:
        raise RunError(
            f"{mask} was changed after it was scored. Put the former file back, or delete {scores} and run the "
            "cross-validation again, which predicts and scores the fold again."
        )


def require_distinct(run: "Run") -> None:
    """Raise a `RunError` if two patients have copies of one scan, so that a fold may train on a test scan.

    Copies are recognized by their files, and by their prepared voxels if they were compressed or converted again.
    """
    owners: dict[tuple[str, int | None], str] = {}
    for scan, case in run.cases.items():
        prepared = run.prepared(scan) / "geometry.json"
        known = read_json(prepared, _known) if prepared.is_file() else {}
        for name in known.keys() - {LABELS, ALIGNED}:
            path = case.images.get(name, next(iter(case.images.values())))
            other = owners.setdefault((known[name], volume_of(path)[1]), scan)
            if run.cases[other].patient != case.patient:
                raise RunError(
                    f"{path} is a copy of an image of {other}, so a fold may train on what it tests. "
                    "Remove one of the two and name another --out, or name their patient in a CSV table."
                )


def weights_sha256(recipe: "Recipe") -> dict[str, str]:
    """The digest of the file that the encoder's weights come from, by its key in environment.json; none if no file."""
    weights = Path(recipe.network.encoder_weights)
    return {"encoder_weights_sha256": files_sha256([weights])} if weights.is_file() else {}


def require_same_weights(environment: Path, recipe: "Recipe") -> None:
    """Raise a `RunError` if the file of the encoder's weights is another than when the run was started."""
    started = read_json(environment, dict) if environment.is_file() else {}
    for key, sha256 in weights_sha256(recipe).items():
        if started.get(key, sha256) != sha256:
            raise RunError(
                f"{recipe.network.encoder_weights} was changed after the run in {environment.parent} was started with "
                f"it as the encoder's weights. {_WHAT_TO_DO}"
            )


def _files(run: "Run", scan: str) -> dict[str, list[Path]]:
    case = run.cases[scan]
    paths = {name: case.images[name] for name in run.recipe.preparation.images} | {LABELS: case.label_map}
    return {role: files_of(path) for role, path in paths.items()}


def _known(content: Any) -> dict[str, str]:
    """The digests of a scan's sources by their role."""
    return {role: found["sha256"] for role, found in content.get("sources", {}).items()}
