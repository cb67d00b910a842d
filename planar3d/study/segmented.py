"""What a segmented scan leaves in a folder: its mask, its lesions, pictures, and a record that says how they were made.

The mask is renamed into place last. So where a mask lies and agrees with its record, all is whole; whatever else is
found was interrupted, or is not ours to replace.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from planar3d.errors import RecipeError, RunError, ScanError
from planar3d.evaluation.figures import overlay as draw_overlay
from planar3d.evaluation.lesion_table import Lesion, lesion_table, write_lesions
from planar3d.evaluation.quality import QualityWarning, check_quality
from planar3d.files import read_json, write_json, written_beside
from planar3d.recipes import Recipe
from planar3d.scans.inputs import ScanInput
from planar3d.scans.labels import Targets
from planar3d.scans.outputs import Outputs
from planar3d.scans.volume import Scan
from planar3d.study.scan_report import write_scan_report
from planar3d.transfer.digests import file_sha256

# What of two records must agree for their masks to be one, and what to call it.
_ORIGIN = {"scan": "scan", "model": "model", "recipe": "recipe", "asked": "engine, method or precision"}


@dataclass(frozen=True)
class Asked:
    """How scans are to be segmented, and what is to be written of each besides its mask, lesion table and record."""

    method: str = "auto"
    engine: str = "auto"
    precision: str | None = None
    batch_size: int = 1
    assume_affine: bool = False
    overwrite: bool = False
    probability: bool = False
    overlay: bool = False
    report: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """The names, among those of `Outputs`, of all that is written of a scan."""
        on_demand = ("probability", "overlay", "report")
        return ("record", "mask", "lesions", *(name for name in on_demand if getattr(self, name)))


def origin(scan_sha256: str, model: Mapping[str, Any], recipe: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """The part of a record that decides its mask; known before the scan is segmented."""
    how = {"method": asked.method, "engine": asked.engine, "precision": asked.precision}
    return {"scan": {"sha256": scan_sha256}, "model": dict(model), "recipe": dict(recipe), "asked": how}


def finished_record(outputs: Outputs, expected: Mapping[str, Any], asked: Asked) -> dict[str, Any] | None:
    """The record of a scan's mask, which is there; None unless all that is asked lies beside it.

    Args:
        outputs: the files' names.
        expected: the scan's `origin`.
        asked: says which files.

    Raises:
        RunError: a mask is there that was made from or by something else, changed since, or is of unknown origin.
    """
    advice = "Use another --out, or --overwrite to replace it."
    if not outputs.record.is_file():
        raise RunError(f"{outputs.mask} is there, but no {outputs.record.name} says how it was made. {advice}")
    record = read_json(outputs.record)
    for part, name in _ORIGIN.items():
        if _deciding(part, record) != _deciding(part, expected):
            raise RunError(f"{outputs.mask} is there, but made from another {name}. {advice}")
    if record["result"]["mask_sha256"] != file_sha256(outputs.mask):
        raise RunError(f"{outputs.mask} was changed after it was written. {advice}")
    return record if all(getattr(outputs, name).is_file() for name in asked.files) else None


def write_segmented(
    outputs: Outputs,
    about: Mapping[str, Any],
    scan: Scan,
    mask: Scan,
    probability: Scan | None,
    asked: Asked,
    targets: Targets,
) -> dict[str, Any]:
    """Write all that is asked of a scan, and return its record.

    Args:
        outputs: the files' names.
        about: what the record says of scan, model, recipe and machine.
        scan: as it was read.
        mask: on the scan's grid; of several targets a label map.
        probability: on the scan's grid, if it is asked for.
        asked: says which files.
        targets: what the labels mean.
    """
    lesions = lesion_table(mask, probability)
    warnings = check_quality(scan, mask, about["model"].get("whole_head"))
    with written_beside(outputs.mask) as temporary:
        mask.save(temporary)
        record = {
            **about,
            **_findings(lesions, warnings, _volumes(mask, targets)),
            "files": _relative(outputs, asked.files),
        }
        record["result"]["mask_sha256"] = file_sha256(temporary)
        write_lesions(outputs.lesions, lesions)
        if asked.probability and probability is not None:
            probability.save(outputs.probability)
        if asked.overlay:
            parts = targets.masks(mask.voxels) if len(targets.names) > 1 else None
            draw_overlay(scan, mask, None, outputs.overlay, about["scan"]["name"], parts)
        if asked.report:
            write_scan_report(record, scan, mask, outputs.report, probability)
        write_json(outputs.record, record)
    return record


def files_sha256(files: Sequence[Path]) -> str:
    """The digest of a file, or of the digests of many, in the order of their names."""
    for path in files:
        if not path.is_file():
            raise ScanError(f"{path} does not exist.")
    digests = [file_sha256(path) for path in sorted(files)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def describe_scan(item: ScanInput, scan: Scan) -> dict[str, Any]:
    """What a record says of a scan."""
    return {
        "name": item.name,
        "path": str(item.path.absolute()),
        "note": item.note,
        "shape": list(scan.voxels.shape),
        "spacing_mm": [round(length, 6) for length in scan.spacing],
        "orientation": "".join(nib.aff2axcodes(scan.affine)),
    }


def summarize(record: Mapping[str, Any]) -> str:
    """A record's findings in a few words."""
    result, count = record["result"], len(record["warnings"])
    warned = f", {count} warning{'s' * (count != 1)}" if count else ""
    if len(targets := result.get("targets_ml", {})) > 1:
        return ", ".join(f"{name} {volume:.1f} ml" for name, volume in targets.items()) + warned
    return f"{result['volume_ml']:.1f} ml, {result['lesions']} lesion{'s' * (result['lesions'] != 1)}{warned}"


def _volumes(labels: Scan, targets: Targets) -> dict[str, float]:
    """The volume in ml of each target of several."""
    if len(targets.names) == 1:
        return {}
    voxel_ml = labels.voxel_mm3 / 1000
    return {name: int(np.count_nonzero(mask)) * voxel_ml for name, mask in targets.masks(labels.voxels).items()}


def _findings(
    lesions: Sequence[Lesion], warnings: Iterable[QualityWarning], targets_ml: Mapping[str, float]
) -> dict[str, Any]:
    volumes = [lesion.volume_ml for lesion in lesions]
    return {
        "result": {"lesions": len(lesions), "volume_ml": sum(volumes), "largest_ml": max(volumes, default=0.0)}
        | ({"targets_ml": targets_ml} if targets_ml else {}),
        "lesions": [{**lesion._asdict(), "extent_mm": list(lesion.extent_mm)} for lesion in lesions],
        "warnings": [warning._asdict() for warning in warnings],
    }


def _relative(outputs: Outputs, names: Iterable[str]) -> dict[str, str]:
    folder = outputs.record.parent
    return {name: Path(os.path.relpath(getattr(outputs, name), folder)).as_posix() for name in names}


def _deciding(part: str, record: Mapping[str, Any]) -> Any:
    """What of a part of a record decides the mask: of scan and model, which may move, the digest."""
    found = record.get(part) or {}
    if part == "recipe":  # a record that is older than a field means what it meant then
        try:
            return Recipe.from_json(found).to_json()
        except RecipeError:  # of a newer version, or altered
            return found
    return found.get("sha256") if part in ("scan", "model") else found
