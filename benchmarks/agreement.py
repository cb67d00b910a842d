"""Masks in bf16 and int8 compared with masks in float32, same weights, real scans: differing voxels, and Dice.

    python benchmarks/agreement.py --data FOLDER --model best.weights.h5 --scans sub-01,sub-02
    python benchmarks/agreement.py --data scans.csv --model ms-flair-open --measure sub-01,sub-02,sub-03 --enter

--measure first measures the greatest values for int8 on the named scans. --enter writes these values, and the bf16
agreement under the recipe's own rule, into the table of published models, for this processor's instructions and this
OpenVINO version; `planar3d predict` then uses bf16 without a check.
"""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from side_by_side import conditions, dice, measure, record, table

from planar3d.cli import main
from planar3d.errors import RunError
from planar3d.sections import check_choice

WAYS = {
    "Keras, float32": ("keras", "float32"),
    "OpenVINO, float32": ("openvino", "float32"),
    "OpenVINO, bf16": ("openvino", "bf16"),
    "OpenVINO, int8": ("openvino", "int8"),
}
THRESHOLDS = (16, 128)  # of 256


def run(
    data: Annotated[Path, typer.Option(help="Folder or table of scans with masks.")],
    model: Annotated[str, typer.Option(help="Trained weights, or a published model.")],
    scans: Annotated[str | None, typer.Option(help="Names of scans, separated by commas; default: all.")] = None,
    keras: Annotated[bool, typer.Option(help="Start with Keras, as the reference for the others.")] = False,
    measure_on: Annotated[str, typer.Option("--measure", help="Scans on which int8 values are measured.")] = "",
    enter: Annotated[bool, typer.Option(help="Enter the agreement in the table of published models.")] = False,
) -> None:
    """Predict each scan in each way, and write the table to RESULTS.md."""
    from planar3d.inference.prepared_scan import prepare
    from planar3d.networks.weights_file import Model
    from planar3d.scans.layouts import find_cases
    from planar3d.scans.volume import read_mask, read_scan
    from planar3d.transfer.metadata import CARD

    opened = Model.open(model)
    if enter:
        _published(opened)
    recipe = opened.recipe
    cases = find_cases(data).by_id()
    chosen = scans.split(",") if scans else list(cases)
    named = dict.fromkeys([*chosen, *filter(None, measure_on.split(","))])
    for name in named:
        check_choice("scan", name, cases, RunError)
    raw = {name: read_scan(cases[name].images["flair"]) for name in named}
    prepared = {name: prepare(scan, recipe) for name, scan in raw.items()}
    experts = {name: read_mask(cases[name].label_map, raw[name]).voxels > 0 for name in chosen}
    later: dict[str, Any] = {}
    if measure_on:
        later["int8"] = _int8(opened, [prepared[name].voxels for name in measure_on.split(",")])
        opened = replace(opened, metadata={**opened.metadata, CARD: {**(opened.card or {}), **later}})
    ways = [name for name in WAYS if keras or not name.startswith("Keras")]
    if "int8" not in (opened.card or {}):
        ways.remove("OpenVINO, int8")
    voxels = [prepared[name].voxels for name in chosen]
    found = {way: measure(_predict, opened, *WAYS[way], voxels) for way in ways}
    probabilities = [found[way].value for way in ways]
    if enter:
        _enter(opened, later, dict(zip(ways, probabilities, strict=True)))
    rows = []
    for number, name in enumerate(chosen):
        for limit in THRESHOLDS:
            masks = [each[number] * 256 > limit for each in probabilities]
            native = [prepared[name].restore(mask).voxels > 0 for mask in masks]
            scores = [dice(mask, experts[name]) for mask in native]
            between = [f"{dice(masks[0], mask):.4f}" for mask in masks[1:]]
            row = [f"{name}, {limit}/256", f"{masks[0].sum():,}", *between, f"{scores[0]:.4f}"]
            rows.append([*row, *(f"{score - scores[0]:+.4f}" for score in scores[1:])])
    headings = ["scan, threshold", "mask voxels", *(f"Dice of the masks, {way}" for way in ways[1:])]
    headings += [f"native Dice, {ways[0]}", *(f"change, {way}" for way in ways[1:])]
    slowest = found[ways[0]].seconds
    times = [
        f"{way} {m.seconds / len(chosen):.1f} s per scan ({slowest / m.seconds:.2f} ×), {m.peak_gib:.2f} GiB, largest "
        f"difference of a probability {_largest(probabilities[0], m.value):.1e}"
        for way, m in found.items()
    ]
    text = f"Weights {opened.path.name} ({recipe.name}). {'; '.join(times)}."
    record("bf16 and int8 beside float32 on real scans", "\n\n".join([text, table(headings, rows), conditions()]))


def _predict(model: Any, engine: str, precision: str, scans: list[np.ndarray]):
    from planar3d.inference.predictor import predictor

    predict = predictor(model, model.recipe, engine=engine, precision=precision)
    return lambda: [predict(voxels) for voxels in scans]


def _largest(wide: list[np.ndarray], narrow: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(wide, narrow, strict=True))


def _int8(model: Any, scans: list[np.ndarray]) -> dict[str, Any]:
    """A card's entry on int8, from the middle window of each scan."""
    from planar3d.inference.int8 import measure_greatest

    depth, windows = model.recipe.tiles.depth, []
    for voxels in scans:
        first = max(0, (len(voxels) - depth) // 2)
        windows.append(model.recipe.preparation.as_input(voxels[first : first + depth])[None])
    greatest = measure_greatest(model.description(), windows)
    return {"greatest": {name: float(f"{value:.4g}") for name, value in greatest.items()}, "measured on": len(scans)}


def _published(model: Any) -> tuple[str, dict[str, Any]]:
    """The model's name in the table of published models, and the table."""
    from planar3d.files import read_json
    from planar3d.transfer.published_models import TABLE

    lines = read_json(TABLE)
    name = next((name for name, line in lines.items() if line["sha256"] == model.sha256), None)
    if name is None:
        raise typer.BadParameter(f"{model.path} is not a published model; run it without --enter, or publish it first.")
    return name, lines


def _enter(model: Any, later: dict[str, Any], found: dict[str, list[np.ndarray]]) -> None:
    """Enter the Dice of the masks in float32 and in other precisions into the table of published models."""
    from planar3d.environment import bf16_instructions
    from planar3d.files import write_json
    from planar3d.transfer.published_models import TABLE

    name, lines = _published(model)
    targets, wide = model.recipe.targets, found["OpenVINO, float32"]

    def agreed(narrow: list[np.ndarray]) -> dict[str, Any]:
        pairs = zip(wide, narrow, strict=True)
        each = [dice(*(targets.assign(p[..., None], float(p.max())) for p in pair)) for pair in pairs]
        return {"scans": len(each), "mean": round(float(np.mean(each)), 5), "least": round(min(each), 5)}

    said = lines[name].setdefault("card", {})
    here = {"instructions": bf16_instructions(), "openvino": version("openvino")}
    if here["instructions"] != "none":
        others = [each for each in said.get("agreement", []) if not here.items() <= each.items()]
        said["agreement"] = [*others, here | agreed(found["OpenVINO, bf16"])]
    if "OpenVINO, int8" in found:
        said["int8"] = {**said.get("int8", {}), **later.get("int8", {}), **agreed(found["OpenVINO, int8"])}
    write_json(TABLE, lines)


if __name__ == "__main__":
    main(run)
