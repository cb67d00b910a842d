"""The outputs of a segmented scan: its mask, its lesions, pictures, and a record of how they were made.

All files are written to a temporary folder and renamed into place, the record first and the mask last. A mask that
agrees with its record is therefore complete with all its files; anything else was interrupted, or must not be replaced.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from planar3d.evaluation.figures import outlines, overlay as draw_overlay
from planar3d.evaluation.lesion_regions import name_regions
from planar3d.evaluation.lesion_table import Lesion, lesion_labels, lesion_table, lesions_by_target, write_lesions
from planar3d.evaluation.quality import QualityWarning, check_quality
from planar3d.files import write_text, written_at
from planar3d.networks.weights_file import Model
from planar3d.recipes import Recipe
from planar3d.scans.bids import write_instance_sidecars, write_sidecars
from planar3d.scans.inputs import ScanInput
from planar3d.scans.labels import Labels, names_of_labels
from planar3d.scans.outputs import Outputs
from planar3d.scans.readers import write_like
from planar3d.scans.volume import Scan
from planar3d.study.dicom_seg import write_dicom_seg
from planar3d.study.dicom_sr import write_dicom_sr
from planar3d.study.scan_report import write_scan_report
from planar3d.transfer.digests import file_sha256
from planar3d.wording import counted

# By the name of a viewer's file in `Outputs`: its header, and the format of a line from the label, its colour (0 to
# 255, and 0 to 1) and its name.
_VIEWERS = {
    "fsleyes": ("", "{label} {red} {green} {blue} {name}"),
    "freeview": ("#No. Label R G B A\n0 background 0 0 0 0\n", "{label} {joined} {r} {g} {b} 0"),
    "label_tables": (
        '# ITK-SnAP Label Description File\n    0     0    0    0        0  0  0    "Clear Label"\n',
        '{label:5d} {r:5d} {g:4d} {b:4d}        1  1  1    "{name}"',
    ),
}


@dataclass(frozen=True)
class Request:
    """Settings of a segmentation, and the further outputs for each scan besides mask, lesion table and record."""

    method: str = "auto"
    engine: str = "auto"
    precision: str | None = None
    batch_size: int = 1
    assume_affine: bool = False
    overwrite: bool = False
    probability: bool = False
    overlay: bool = False
    report: bool = False
    dicom_seg: bool = False
    dicom_sr: bool = False  # comes with dicom_seg, to which it refers
    same_format: bool = False
    label_tables: bool = False
    instances: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """The names, among those of `Outputs`, of all that is written of a scan."""
        named = {each.name for each in fields(Outputs)}
        on_demand = [name for name, wanted in vars(self).items() if wanted and name in named]
        tables = ["fsleyes", "freeview"] if self.label_tables else []
        return ("record", "mask", "lesions", *on_demand, *tables)

    @property
    def how(self) -> dict[str, Any]:
        """The settings of `Segmenter`."""
        return {name: getattr(self, name) for name in ("method", "engine", "precision", "batch_size")}


def describe_models(models: Sequence[Model]) -> dict[str, Any]:
    """The description of a mask's models: `Model.describe` for one, combined for several.

    Returns:
        For several, the fields of one, where `sha256` is the digest of all digests in order; and `members`: the fields
        of each, with its `recipe` if it differs from the first one's.
    """
    each = [model.describe() for model in models]
    if len(each) == 1:
        return each[0]
    expected = {one["whole_head"] for one in each} - {None}
    unlike = [{} if model.recipe == models[0].recipe else {"recipe": model.recipe.to_json()} for model in models]
    return {
        "name": " + ".join(one["name"] for one in each),
        "sha256": hashlib.sha256("".join(one["sha256"] for one in each).encode()).hexdigest(),
        "licence": "; ".join(dict.fromkeys(one["licence"] for one in each)),
        "threshold": each[0]["threshold"],
        "whole_head": expected.pop() if len(expected) == 1 else None,
        "limits": list(dict.fromkeys(limit for one in each for limit in one["limits"])),
        "members": [one | recipe for one, recipe in zip(each, unlike, strict=True)],
    }


def write_segmented(
    outputs: Outputs,
    item: ScanInput,
    about: Mapping[str, Any],
    scan: Scan,
    mask: Scan,
    probability: Scan | None,
    request: Request,
    recipe: Recipe,
) -> dict[str, Any]:
    """Write all requested outputs of a scan, and what BIDS requires beside them, but its record, which is returned.

    Args:
        outputs: the files, in a temporary folder.
        about: the record's entries on scan, model, recipe and machine.
        mask, probability: on the scan's grid; the mask is a label map for several targets.
        recipe: defines the meaning of labels, and the contrast of the scan.
    """
    targets, image, model = recipe.targets, recipe.preparation.images[0], about["model"]
    parts = targets.masks(mask.voxels)
    found = Scan(np.logical_or.reduce([*parts.values()]), mask.header)  # without classes that are no target
    lesions, whole = lesions_by_target(mask, targets, probability), lesion_table(found)
    if "lesion" in lesions and targets.in_head and image == "flair":
        of_lesions = Scan(parts["lesion"], mask.header)
        lesions["lesion"] = name_regions(lesions["lesion"], scan, of_lesions, parts.get("ventricles"))
    warnings = check_quality(scan, found, model.get("whole_head"), targets, image, model.get("measured"))
    mask.save(outputs.mask)
    standard = {}
    if item.dataset:
        standard = write_sidecars(item.dataset, item.path, outputs, targets.scored, request.probability)
        if request.instances:
            write_instance_sidecars(item.dataset, item.path, outputs, [lesion._asdict() for lesion in whole])
    paths = {name: os.path.relpath(getattr(outputs, name), outputs.record.parent) for name in request.files}
    record = {
        **standard,
        **about,
        "scan": {
            **about["scan"],
            "name": item.name,
            "path": str(item.path.absolute()),
            "note": item.note,
            "shape": list(scan.voxels.shape),
            "spacing_mm": [round(length, 6) for length in scan.spacing],
            "orientation": "".join(nib.aff2axcodes(scan.affine)),
        },
        **_findings(lesions, warnings, whole),
        "files": {name: Path(path).as_posix() for name, path in paths.items()},
    }
    record["result"]["mask_sha256"], record["mask_written_ns"] = file_sha256(outputs.mask), written_at(outputs.mask)
    write_lesions(outputs.lesions, lesions)
    if request.probability and probability is not None:
        probability.save(outputs.probability)
    if request.overlay:
        draw_overlay(scan, found, None, outputs.overlay, item.name, parts if len(parts) > 1 else None)
    if request.report:
        write_scan_report(record, scan, mask, outputs.report, probability, parts, targets.noun)
    if request.dicom_seg and item.series is not None:
        write_dicom_seg(found, item.series, model, outputs.dicom_seg)
        if request.dicom_sr:
            (of_one,) = lesions.values()
            write_dicom_sr(of_one, outputs.dicom_seg, outputs.dicom_sr)
    if request.label_tables:
        write_label_tables(outputs, targets.scored)
    if request.instances:
        Scan(lesion_labels(found), scan.header).save(outputs.instances)
    if request.same_format and outputs.same_format != outputs.mask:
        write_like(item.path, mask.voxels, mask.affine, outputs.same_format)
    return record


def write_label_tables(outputs: Outputs, scored: Mapping[str, Labels]) -> None:
    """Write the tables of ITK-SNAP, FSLeyes and FreeView, in the colours of pages and pictures.

    A label of several targets has the colour of the last one, the innermost of nested regions.

    Args:
        scored: the targets of the mask, by name, with their labels.
    """
    # No viewer reads a name over two lines, and ITK-SNAP ends it at a quotation mark.
    names = {label: " ".join(name.replace('"', "'").split()) for label, name in names_of_labels(scored).items()}
    innermost = {label: name for name, labels in scored.items() for label in labels}
    colours = outlines(scored)
    for file, (head, line) in _VIEWERS.items():
        lines = []
        for label, name in names.items():
            r, g, b = bytes.fromhex(colours[innermost[label]][0][1:])
            shares = {"red": round(r / 255, 4), "green": round(g / 255, 4), "blue": round(b / 255, 4)}
            lines.append(line.format(label=label, name=name, joined=name.replace(" ", "-"), r=r, g=g, b=b, **shares))
        write_text(getattr(outputs, file), head + "\n".join(lines) + "\n")


def summarize_record(record: Mapping[str, Any]) -> str:
    """A short summary of a record's result."""
    result, count = record["result"], len(record["warnings"])
    warned = f", {counted(count, 'warning')}" if count else ""
    if len(targets := result.get("targets_ml", {})) > 1:
        return ", ".join(f"{name} {volume:.1f} ml" for name, volume in targets.items()) + warned
    return f"{result['volume_ml']:.1f} ml, {counted(result['lesions'], 'lesion')}{warned}"


def _findings(
    by_target: Mapping[str, Sequence[Lesion]], warnings: Iterable[QualityWarning], whole: Sequence[Lesion]
) -> dict[str, Any]:
    """The result; for several targets, each lesion has its target, and volumes are per target and in total."""
    several = len(by_target) > 1
    volumes = [lesion.volume_ml for lesion in whole]
    targets_ml = {name: sum(lesion.volume_ml for lesion in lesions) for name, lesions in by_target.items()}
    return {
        "result": {"lesions": len(whole), "volume_ml": sum(volumes), "largest_ml": max(volumes, default=0.0)}
        | ({"targets_ml": targets_ml} if several else {}),
        "lesions": [
            ({"target": name} if several else {}) | {**lesion._asdict(), "extent_mm": list(lesion.extent_mm)}
            for name, lesions in by_target.items()
            for lesion in lesions
        ],
        "warnings": [warning._asdict() for warning in warnings],
    }
