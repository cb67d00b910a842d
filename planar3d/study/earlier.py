"""What an earlier run left of a scan: whether it is finished, of another origin, still valid, or out of date."""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from planar3d.errors import RecipeError, RunError
from planar3d.recipes import Recipe
from planar3d.scans.bids import sidecars
from planar3d.scans.foreign_images import files_of_mask
from planar3d.scans.image_files import stem
from planar3d.scans.inputs import ScanInput
from planar3d.scans.outputs import Outputs
from planar3d.study.record_form import read_record
from planar3d.study.records import is_own, scan_sha256, scan_stamp
from planar3d.study.segmented import Request
from planar3d.transfer.digests import file_sha256

# Parts of two records that must agree for their masks to be the same, and how another one made a mask.
_ORIGIN = {"scan": "from another scan", "model": "by another model", "recipe": "by another recipe"}
_ADVICE = "Use another output folder, or --overwrite to replace it."


def origin(
    item: ScanInput, model: Mapping[str, Any], recipe: Mapping[str, Any], request: Request, before: Mapping[str, Any]
) -> dict[str, Any]:
    """The part of a record that determines its mask; known before segmentation.

    The scan's files are not read if their places, sizes and times are those in the record of an earlier run.
    """
    how = {"method": request.method, "engine": request.engine, "precision": request.precision}
    stamp = scan_stamp(item)  # first: if a file is changed meanwhile, its digest is not that of these times
    known = before["scan"].get("sha256") if stamp and stamp == before.get("scan_stamp") else None
    scan = {"sha256": known or scan_sha256(item)}
    return {"scan": scan, "scan_stamp": stamp, "model": dict(model), "recipe": dict(recipe), "requested": how}


def record_of_mask(outputs: Outputs) -> dict[str, Any]:
    """The record of a scan's existing mask; a `RunError` if it has none."""
    record = read_record(outputs.record) if outputs.record.is_file() else None
    if record is None:
        raise RunError(f"{outputs.mask} exists, but no {outputs.record.name} says how it was made. {_ADVICE}")
    return record


def is_finished(outputs: Outputs, record: Mapping[str, Any], expected: Mapping[str, Any], request: Request) -> bool:
    """Whether all requested outputs of a scan exist, and its record names them.

    Args:
        expected: the scan's `origin` today.

    Raises:
        RunError: the mask was made from another scan, by another model or recipe, or with another method, engine or
            precision; or it was changed.
    """
    for part, another in _ORIGIN.items():
        if not _agree(part, record, expected):
            raise RunError(f"{outputs.mask} exists, but was made {another}. {_ADVICE}")
    before, now = record.get("requested") or {}, expected["requested"]
    for name in {**now, **before}:
        made, wanted = (settings.get(name) or "default" for settings in (before, now))
        if made != wanted:
            raise RunError(f"{outputs.mask} exists, but was made with another {name}: {made}, not {wanted}. {_ADVICE}")
    if record["result"].get("mask_sha256") != file_sha256(outputs.mask):
        raise RunError(f"{outputs.mask} was changed after it was written. {_ADVICE}")
    named = _named(outputs, record)
    return all(name in named and named[name].is_file() for name in request.files)


def earlier_record(outputs: Outputs, names: Iterable[str], overwrite: bool, in_dataset: bool) -> dict[str, Any]:
    """The record in a scan's place, empty if there is none.

    Args:
        names: of the outputs to be written.
        overwrite: whether files that the record does not name are replaced; the scan's sidecar never is.
        in_dataset: whether the scan is one of a BIDS data set, so that its outputs get sidecars.

    Raises:
        RunError: the record is damaged, or a file with the name of an output is another file.
    """
    path = outputs.record
    if (before := read_record(path) if path.is_file() else {}) is None:
        raise RunError(
            f"{path} has the name of a record of planar3d but is another file, perhaps the scan's sidecar. Use another "
            "output folder."
        )
    known = _files(outputs, _named(outputs, before), in_dataset)
    for other in _files(outputs, names, in_dataset):
        if os.path.lexists(other) and not (overwrite or other in known or is_own(other)):
            raise RunError(
                f"{other} exists, but no {path.name} says that planar3d wrote it. Use another output folder, or "
                "--overwrite to replace it."
            )
    return before


def kept_files(outputs: Outputs, before: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, str]:
    """The outputs of an earlier run that remain valid, as its record names them: those of the same mask and origin."""

    def made(one: Mapping[str, Any]) -> tuple[Any, ...]:
        return one["result"].get("mask_sha256"), one.get("requested")

    if not before or made(before) != made(record) or not all(_agree(part, before, record) for part in _ORIGIN):
        return {}
    return {name: before["files"][name] for name, path in _named(outputs, before).items() if path.is_file()}


def remove_outdated(outputs: Outputs, before: Mapping[str, Any], kept: Collection[str]) -> None:
    """Remove the outputs of an earlier run that are not kept, as they show another mask or have another origin.

    Those to be written again, too: if the process is killed before they are, they are missing rather than outdated.
    """
    old, own = _named(outputs, before).keys() - kept, Path(before.get("files", {}).get("same_format", "")).name
    if stem(Path(own)) == stem(outputs.mask):  # of a scan that had another format
        outputs = replace(outputs, same_format=outputs.mask.with_name(own))
    for path in _files(outputs, old, "Sources" in before) - {outputs.record, outputs.mask}:  # renamed into place
        path.unlink(missing_ok=True)


def _named(outputs: Outputs, record: Mapping[str, Any]) -> dict[str, Path]:
    return {name: path for name, path in vars(outputs).items() if name in record.get("files", {})}


def _files(outputs: Outputs, names: Iterable[str], in_dataset: bool) -> set[Path]:
    """The files of these outputs; in a BIDS data set with the sidecars and tables of images."""
    if not in_dataset:
        return {file for name in names for file in files_of_mask(getattr(outputs, name))}
    _, meanings = sidecars(outputs.mask)
    about, _ = sidecars(outputs.probability)
    beside = {"mask": (meanings,), "probability": (about,), "instances": sidecars(outputs.instances)}
    return {path for name in names for path in (getattr(outputs, name), *beside.get(name, ()))}


def _agree(part: str, record: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records agree in a part that determines the mask: scan and model, which may move, by digest."""
    if part != "recipe":
        return record[part].get("sha256") == other[part].get("sha256")
    recipes, others = _recipes(record), _recipes(other)
    return recipes == others or [*map(_as_today, recipes)] == [*map(_as_today, others)]


def _recipes(record: Mapping[str, Any]) -> list[Any]:
    """The recipe of a record, and those of the members of its model."""
    return [record["recipe"], *(member.get("recipe") for member in record["model"].get("members", ()))]


def _as_today(recipe: Any) -> Any:
    """A record's recipe, as JSON, with all current fields; older recipes keep their meaning."""
    try:
        return Recipe.from_json(recipe).to_json()
    except RecipeError:  # from a newer version, altered, or missing
        return recipe
