"""Masks of other programs and of `ms-flair-open` for three patients, each scored as in its own evaluation.

    python experiments/rivals/score.py --data DATA [--masks MASKS]

DATA has `ms_flair` and `ms_flair_other_methods`, with masks by the group that published the scans, at its own
thresholds. MASKS has those of samseg.py; the rows of a method without masks stay. The scores of `ms-flair-open` are
cross-validated, from networks not trained on the patient, as in experiments/open_model/scores.csv.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from planar3d.cli import main
from planar3d.evaluation.scores import score_scan
from planar3d.files import read_rows, write_csv
from planar3d.scans.layouts import find_cases
from planar3d.scans.volume import read_mask, read_scan

TABLE = Path(__file__).with_name("scores.csv")
OURS, OUR_SCORES = "ms-flair-open", Path(__file__).parents[1] / "open_model" / "scores.csv"
OUR_ROWS = {"engine": "openvino", "threshold": "32"}
SCORES = ("dice", "sensitivity", "precision", "lesion_f1")
VOLUMES = ("prediction_ml", "reference_ml")
COLUMNS = ("method", "scan", *SCORES, *VOLUMES)


def run(
    data: Annotated[Path, typer.Option("--data", help="Folder of both data sets.")],
    masks: Annotated[Path | None, typer.Option("--masks", help="Folder with masks of further methods.")] = None,
    out: Annotated[Path, typer.Option("--out", help="CSV of all scores.")] = TABLE,
) -> None:
    """Score all masks, write the CSV, and print the table."""
    folders = [data / "ms_flair_other_methods", *([masks] if masks else [])]
    rows = scores_of(data / "ms_flair", folders)
    rows += ours({row["scan"] for row in rows})
    scored = {row["method"] for row in rows}
    rows += [row for row in (read_rows(out) if out.is_file() else []) if row["method"] not in scored]
    write_csv(out, COLUMNS, sorted(rows, key=lambda row: (row["method"] == OURS, row["method"], row["scan"])))
    typer.echo("\n".join(markdown(read_rows(out))))


def scores_of(data: Path, folders: Sequence[Path]) -> list[dict[str, Any]]:
    """A row for each method and scan; a folder has a folder of masks for each method."""
    cases, rows = find_cases(data).by_id(), []
    for path in sorted(path for folder in folders for path in folder.glob("*/*_mask.nii.gz")):
        case = cases[path.name.removesuffix("_mask.nii.gz")]
        scan = read_scan(case.images["flair"])
        expert, found = read_mask(case.label_map, scan), read_mask(path, scan)
        scores = score_scan(expert.voxels, found.voxels, scan.affine)
        rows.append({"method": path.parent.name, "scan": case.id, **_rounded(scores)})
    return rows


def ours(scans: set[str]) -> list[dict[str, Any]]:
    """The cross-validated rows of the published model's recipe, of these scans."""
    rows = [row for row in read_rows(OUR_SCORES) if row["scan"] in scans and OUR_ROWS.items() <= row.items()]
    return [{"method": OURS, **{name: row[name] for name in COLUMNS[1:]}} for row in rows]


def markdown(rows: Sequence[dict[str, str]]) -> list[str]:
    """A row for each method, the best mean Dice first."""
    scans = sorted({row["scan"] for row in rows})
    lines = [f"| method | {' | '.join(scans)} | Dice | sensitivity | precision | lesion F1 |"]
    lines += ["| :-- |" + " --: |" * (len(scans) + 4)]
    methods = {name: [row for row in rows if row["method"] == name] for name in {row["method"] for row in rows}}
    for name, own in sorted(methods.items(), key=lambda item: -_mean(item[1], "dice")):
        dice = [f"{float(row['dice']):.3f}" for row in sorted(own, key=lambda row: row["scan"])]
        lines.append(f"| {' | '.join([name, *dice, *(f'{_mean(own, score):.3f}' for score in SCORES)])} |")
    return lines


def _mean(rows: Sequence[dict[str, str]], score: str) -> float:
    return float(np.mean([float(row[score]) for row in rows]))


def _rounded(scores: dict[str, Any]) -> dict[str, float]:
    return {name: round(float(scores[name]), 4 if name in SCORES else 2) for name in (*SCORES, *VOLUMES)}


if __name__ == "__main__":
    main(run)
