"""Masks in bf16 beside masks in float32, of the same weights on real scans: voxels that differ, change of Dice.

python benchmarks/agreement.py --data FOLDER --model best.weights.h5 --scans sub-01,sub-02

With --card the agreement by the recipe's own rule goes into the JSON of a model card, for this processor's instructions
and this OpenVINO; where a published card has it, `planar3d predict` trusts bf16 without a check.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from side_by_side import conditions, dice, measure, record, table

WAYS = {
    "Keras, float32": ("keras", "float32"),
    "OpenVINO, float32": ("openvino", "float32"),
    "OpenVINO, bf16": ("openvino", "bf16"),
}
THRESHOLDS = (16, 128)  # of 256


def main(
    data: Annotated[Path, typer.Option(help="Folder of scans with masks.")],
    model: Annotated[Path, typer.Option(help="Trained weights.")],
    scans: Annotated[str | None, typer.Option(help="Which of them, with commas; all if left out.")] = None,
    size: Annotated[int, typer.Option(help="Voxels along each axis of the prepared scan.")] = 256,
    keras: Annotated[bool, typer.Option(help="Begin with Keras, which the others are then compared with.")] = False,
    card: Annotated[Path | None, typer.Option(help="JSON of a model card, to enter the agreement in.")] = None,
) -> None:
    """Predict each scan in each way, and write the table to RESULTS.md."""
    from planar3d.networks.weights_file import read_recipe
    from planar3d.recipes import PAPER
    from planar3d.scans.datasets import find_cases
    from planar3d.scans.prepare import prepare
    from planar3d.scans.volume import read_mask, read_scan

    recipe = (read_recipe(model) or PAPER).changed(size=size)
    cases = find_cases(data).by_id()
    chosen = scans.split(",") if scans else list(cases)
    raw = {name: read_scan(cases[name].images["flair"]) for name in chosen}
    prepared = {name: prepare(raw[name], recipe) for name in chosen}
    experts = {name: read_mask(cases[name].label_map, raw[name]).voxels > 0 for name in chosen}
    ways = [way for way in WAYS if keras or not way.startswith("Keras")]
    found = {
        way: measure(_predict, model, recipe, *WAYS[way], [prepared[name].voxels for name in chosen]) for way in ways
    }
    if card is not None:
        _enter(card, recipe, *(found[f"OpenVINO, {precision}"].value for precision in ("float32", "bf16")))
    rows = []
    for number, name in enumerate(chosen):
        for limit in THRESHOLDS:
            masks = [found[way].value[number] * 256 > limit for way in ways]
            native = [prepared[name].restore(mask).voxels > 0 for mask in masks]
            scores = [dice(mask, experts[name]) for mask in native]
            differ = int((masks[0] != masks[-1]).sum())
            share = differ / max(int(masks[0].sum()), 1)
            between = dice(masks[0], masks[-1])
            row = [f"{name}, {limit}/256", f"{masks[0].sum():,}", f"{differ:,} ({share:.2%})", f"{between:.4f}"]
            rows.append([*row, *(f"{d:.4f}" for d in scores), f"{scores[-1] - scores[0]:+.4f}"])
    headings = ["scan, threshold", "mask voxels", f"differ, {ways[0]} to bf16", "Dice of the two"]
    headings += [f"native Dice, {way}" for way in ways] + ["change"]
    times = ", ".join(f"{way} {m.seconds / len(chosen):.1f} s a scan, {m.peak_gib:.2f} GiB" for way, m in found.items())
    largest = max(float(np.abs(a - b).max()) for a, b in zip(found[ways[0]].value, found[ways[-1]].value, strict=True))
    text = (
        f"Weights {model.name} ({recipe.name}) at {size}³; largest difference of a probability {largest:.1e}. {times}."
    )
    record("bf16 beside float32 on real scans", "\n\n".join([text, table(headings, rows), conditions()]))


def _predict(model: Path, recipe, engine: str, precision: str, scans: list[np.ndarray]):
    from planar3d.inference.predictor import predictor
    from planar3d.networks.weights_file import load_network

    network, _ = load_network(model, recipe)
    predict = predictor(network, recipe, "shared", engine, precision)
    return lambda: [predict(voxels) for voxels in scans]


def _enter(card: Path, recipe, wide: list[np.ndarray], narrow: list[np.ndarray]) -> None:
    """Enter the Dice of the masks in both precisions, of all scans, in place of what was measured so before."""
    from planar3d.environment import bf16_instructions
    from planar3d.files import read_json, write_json

    here = {"instructions": bf16_instructions(), "openvino": version("openvino")}
    if here["instructions"] == "none":
        raise typer.BadParameter("this processor does not multiply in bf16; nothing was entered.")
    masks = [[recipe.targets.assign(p[..., None], float(p.max())) for p in found] for found in (wide, narrow)]
    agreed = [dice(*pair) for pair in zip(*masks, strict=True)]
    said = read_json(card)
    others = [each for each in said.get("agreement", []) if not here.items() <= each.items()]
    measured = {"scans": len(agreed), "mean": float(np.mean(agreed)), "least": min(agreed)}
    write_json(card, said | {"agreement": [*others, here | measured]})


if __name__ == "__main__":
    typer.run(main)
