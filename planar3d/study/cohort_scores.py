"""Scores of a folder of masks against the expert label maps of the data set that they were made from."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from planar3d.errors import RunError, path_of
from planar3d.evaluation.challenges import ALL_MEASURES, score_targets
from planar3d.evaluation.scores import summarize
from planar3d.files import write_csv
from planar3d.locks import alone_with
from planar3d.progress import tell
from planar3d.recipes import Recipe
from planar3d.scans.case import Case
from planar3d.scans.image_files import is_there
from planar3d.scans.inputs import ScanInput
from planar3d.scans.layouts import find_cases, find_layout
from planar3d.scans.volume import read_labels
from planar3d.study.records import begins, mask_is_gone, mask_was_changed, records_within, scan_sha256
from planar3d.wording import counted, listed, score_text


def score_masks(
    masks: str | Path,
    data: str | Path,
    notify: Callable[[str], None] = tell,
    assume_affine: bool = False,
    out: Path | None = None,
) -> list[dict[str, Any]]:
    """Score each mask that `planar3d predict` wrote into a folder, on the native grid.

    A mask belongs to the case of the image that it was made from, found by its SHA-256 even if the image was moved. If
    there is none, it belongs to the case with its scan's file, or else with its scan's name, unless that case has the
    mask of its own image.

    Args:
        data: a data set with label maps, see `find_cases`.
        notify: gets one line per mask and target, one for each mask that is not scored or whose scan was changed, and
            one for all cases without a mask.
        assume_affine: as in `read_scan`, for the label maps.
        out: gets the rows as CSV; measures that not all targets have are empty for others.

    Returns:
        One row for each mask and target: scan, group, target, and the scores of `score_targets`.

    Raises:
        RunError: the folder has no masks, a mask is missing, no mask belongs to a case, several belong to one, or
            something other than a table of scores is at `out`.
        DatasetError: see `find_cases`; or the targets of a mask have other labels than the data set.
        ScanError: a label map does not fit its mask.
    """
    if out and os.path.lexists(out) and not begins(out, "scan,group,target,"):
        raise RunError(f"{out} exists, but is not a table of scores. Name another file with --out, or delete this one.")
    dataset, rows, damaged = find_cases(data), list[dict[str, Any]](), dict[str, str]()
    _, found = find_layout(dataset.folder, labelled=False)
    tests = [case for case in found if case.labels]  # not for training, but with label maps: labelsTs of nnU-Net
    without = dataset.by_id()
    named = {case.id: case for case in tests} | without
    by_image = {os.path.realpath(image): case for case in (*tests, *dataset.cases) for image in case.images.values()}

    @cache
    def sha256(images: tuple[Path, ...]) -> str:
        is_whole = images and all(map(is_there, images))
        return scan_sha256(ScanInput("", images[0], images={str(path): path for path in images})) if is_whole else ""

    def made_from(file: Path, record: Mapping[str, Any], recipe: Recipe, there: Case | None) -> Case | None:
        if "sha256" not in (scan := record["scan"]):
            return there
        others = (member.get("recipe") for member in record["model"].get("members", ()))
        members = [Recipe.from_json(other, str(file)) for other in others if other]
        names = {name: 1 for one in (recipe, *members) for name in one.preparation.images}
        for case in dict.fromkeys((there, named.get(scan["name"]), *named.values())):  # the most likely ones first
            images = case.images if case else {}
            several = [tuple(images[name] for name in names)] if names.keys() <= images.keys() else []
            # A single image may have another name in the data set than in the model.
            if scan["sha256"] in map(sha256, several if len(names) > 1 else [(image,) for image in images.values()]):
                return case
        return None

    records = list(records_within(path_of(masks, "The folder of masks", RunError), damaged))
    recipes = [Recipe.from_json(record["recipe"], str(file)) for file, record in records]
    models = {record["model"]["sha256"]: record["model"]["name"] for _, record in records}
    if len(models) > 1:
        notify(f"{masks} has masks of {len(models)} models, and means are over all: {listed(models.values())}")
    elif len(different := {*recipes}) > 1:
        notify(f"{masks} has masks made with {len(different)} recipes, and means are over all")
    for why in damaged.values():
        notify(why)
    there = [by_image.get(os.path.realpath(record["scan"].get("path", ""))) for _, record in records]
    own = [made_from(*one, recipe, case) for one, recipe, case in zip(records, recipes, there, strict=True)]
    taken = {case.id for case in own if case}
    of_case = dict[str, Path]()
    for (file, record), recipe, image_of, at_its_place in zip(records, recipes, own, there, strict=True):
        scan = record["scan"]
        alike = at_its_place or named.get(scan["name"])
        case = image_of or (None if alike is None or alike.id in taken else alike)
        if case is None:
            notify(f"{scan['name']} has no label map in {data}, and is not scored")
            continue
        if (other := of_case.setdefault(case.id, file)) != file:
            raise RunError(
                f"{other} and {file} both belong to the case {case.id}. Name a folder that has only one of them."
            )
        if gone := mask_is_gone(file, record):
            raise RunError(f"{file.parent}: {gone}")
        if image_of is None and at_its_place:
            notify(f"{scan['name']}: {scan['path']} was changed after it was segmented")
        if changed := mask_was_changed(file, record):
            notify(f"{scan['name']}: {changed.partition(':')[0]}")
        targets = recipe.targets
        dataset.require_meaning(targets.scored)
        mask = read_labels(file.parent / record["files"]["mask"])
        targets.check_labels(mask.voxels, str(mask.path))
        expert = targets.read(case.label_map, mask, assume_affine)
        for target, scores in score_targets(targets, expert.voxels, mask.voxels, mask.affine, case.group).items():
            without.pop(case.id, None)
            rows.append({"scan": scan["name"], "group": case.group, "target": target, **scores})
            notify(f"{scan['name']}  {target}  Dice {score_text(scores['dice'])}")
    if not rows:
        raise RunError(
            f"No mask in {masks} was made from a case in {data}. Name a folder that planar3d predict wrote, and the "
            "data set of its scans."
        )
    if without:
        notify(f"{len(without)} of {counted(dataset.cases, 'case')} in {data} without a mask: {listed(without)}")
    if out:
        with alone_with(out):
            write_csv(out, list(dict.fromkeys(name for row in rows for name in row)), rows)
    return rows


def mean_scores(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each target and score: mean ± standard deviation over scans."""
    lines = []
    for target in dict.fromkeys(row["target"] for row in rows):
        scores = [row for row in rows if row["target"] == target]
        lines.append(f"{target}, mean ± standard deviation over {counted(scores, 'scan')}")
        for name, measure in ALL_MEASURES.items():
            if values := [row[name] for row in scores if name in row]:
                lines.append(f"{name:24s} {summarize(values, measure.digits)}")
    return lines
