"""The cost of changes by other scanners or preparations, over the nine scans.

Every scan of a cross-validation is changed, and predicted by the network of the fold that tests it.

    python experiments/open_model/robustness.py RUN --out robustness.csv [--engine openvino-bf16] [--changes a,b]
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import typer
from evaluate import ENGINES, SCORES
from scipy import ndimage

from planar3d.cli import main
from planar3d.errors import RunError
from planar3d.evaluation.scores import score_scan, summarize
from planar3d.files import read_rows, write_csv
from planar3d.inference.predictor import predictor
from planar3d.inference.prepared_scan import native_mask, predict_prepared, prepare
from planar3d.networks.weights_file import load_network
from planar3d.recipes import MODERN
from planar3d.scans.intensities import head_median, head_threshold
from planar3d.scans.volume import Scan, read_mask, read_scan
from planar3d.sections import check_choice
from planar3d.study.run_folder import open_run
from planar3d.training.augmentation import brain_mask, grown, shrunk

COLUMNS = ("scan", "fold", "changed", *SCORES)
AS_IT_IS = "as-it-is"
Rng = np.random.Generator
Changed = tuple[np.ndarray, np.ndarray]
Change = Callable[[np.ndarray, np.ndarray, Scan, Rng], Changed]


def _extracted(wider_mm: float = 0.0) -> Change:
    def change(grey: np.ndarray, lesions: np.ndarray, scan: Scan, rng: Rng) -> Changed:
        prepared = prepare(scan, MODERN)
        brain = brain_mask(prepared.voxels[..., 0], MODERN.pixel_mm)
        kept = (grown if wider_mm >= 0 else shrunk)(brain, abs(wider_mm), MODERN.pixel_mm)
        return np.where(prepared.restore(kept.astype(np.uint8)).voxels, np.maximum(grey, 0), 0), lesions

    return change


def _standardized(grey: np.ndarray, lesions: np.ndarray, scan: Scan, rng: Rng) -> Changed:
    grey, lesions = _extracted()(grey, lesions, scan, rng)
    brain = grey[grey > 0]
    return np.where(grey > 0, (grey - brain.mean()) / brain.std(), 0), lesions


def _noise(share: float) -> Change:
    def change(grey: np.ndarray, lesions: np.ndarray, scan: Scan, rng: Rng) -> Changed:
        deviation = share * head_median(grey, head_threshold(grey))
        real, imaginary = deviation * rng.normal(size=(2, *grey.shape))
        return np.hypot(grey + real, imaginary), lesions

    return change


def _power(exponent: float) -> Change:
    return lambda grey, lesions, scan, rng: (np.maximum(grey, 0) ** exponent, lesions)


def _field(grey: np.ndarray, lesions: np.ndarray, scan: Scan, rng: Rng) -> Changed:
    places = np.meshgrid(*(np.linspace(0, 3, n) for n in grey.shape), indexing="ij")
    field = ndimage.map_coordinates(rng.normal(size=(4, 4, 4)), places, order=3, mode="nearest")
    return grey * np.exp(0.4 * field / np.abs(field).max()), lesions


def _coarse(grey: np.ndarray, lesions: np.ndarray, scan: Scan, rng: Rng) -> Changed:
    zooms = [min(1.0, mm / 1.5) for mm in scan.spacing[:2]] + [1.0]
    grey, likely = (
        ndimage.zoom(a.astype(np.float32), zooms, order=1, grid_mode=True, mode="nearest") for a in (grey, lesions)
    )
    return grey, (likely > 0.5).astype(np.uint8)


# Description, and the change of raw grey levels and the experts' lesions.
CHANGES: dict[str, tuple[str, Change]] = {
    AS_IT_IS: ("unaltered", lambda grey, lesions, scan, rng: (grey, lesions)),
    "extracted": ("brain extracted", _extracted()),
    "extracted-wide": ("brain extracted, with a margin of 5 mm", _extracted(5.0)),
    "extracted-tight": ("brain extracted, without its outer 2 mm", _extracted(-2.0)),
    "standardized": ("brain extracted, z-scores, background 0", _standardized),
    "noise-8": ("noise, 8 % of the head's median", _noise(0.08)),
    "noise-15": ("noise, 15 %", _noise(0.15)),
    "power-0.7": ("grey levels to the power 0.7", _power(0.7)),
    "power-1.4": ("to the power 1.4", _power(1.4)),
    "field": ("bias field, factors of 0.67 to 1.5", _field),
    "coarse": ("pixels of 1.5 mm", _coarse),
}


def run(
    folder: Annotated[Path, typer.Argument(help="Run folder of a cross-validation.")],
    out: Annotated[Path, typer.Option("--out", help="CSV of all scores.")],
    engine: Annotated[str, typer.Option("--engine", help=f"One of {', '.join(ENGINES)}.")] = "keras",
    changes: Annotated[str, typer.Option("--changes", help="Names of changes.")] = ",".join(CHANGES),
) -> None:
    """Write the scores of every scan and change, and print the cost of each change."""
    unknown = [name for name in changes.split(",") if name not in CHANGES]
    if unknown:
        raise RunError(f"--changes {changes}: {unknown[0]!r} is unknown; choose from: {', '.join(CHANGES)}.")
    chosen = dict.fromkeys((AS_IT_IS, *changes.split(",")))
    check_choice("--engine", engine, ENGINES, RunError)
    study, rows = open_run(folder), []
    for number, fold in enumerate(study.folds, start=1):
        network, recipe = load_network(study.fold(number) / "best.weights.h5", study.recipe)
        predict = predictor(network, recipe, **ENGINES[engine])
        for scan_id in fold.test:
            case = study.cases[scan_id]
            scan = read_scan(case.images["flair"])
            lesions = read_mask(case.label_map, scan).voxels
            for name in chosen:
                changed, reference = changed_scan(name, scan, lesions)
                prepared = prepare(changed, recipe)
                mask = native_mask(predict_prepared(predict, prepared, recipe), prepared, recipe)
                scores = score_scan(reference, mask.voxels, mask.affine)
                about = {"scan": scan_id, "fold": number, "changed": name}
                rows.append(about | {score: round(scores[score], 4) for score in SCORES})
        write_csv(out, COLUMNS, rows)
    typer.echo("\n".join(markdown(read_rows(out))))


def changed_scan(name: str, scan: Scan, lesions: np.ndarray) -> tuple[Scan, np.ndarray]:
    """A changed scan, with a fixed random part, and the lesions on its grid."""
    grey, reference = CHANGES[name][1](np.asarray(scan.voxels, np.float32), lesions, scan, np.random.default_rng(0))
    spread = np.diag([*np.divide(scan.voxels.shape, grey.shape), 1.0])
    header = nib.Nifti1Image(np.empty(grey.shape, np.uint8), scan.affine @ spread).header
    return Scan(grey.astype(np.float32), header), reference


def markdown(rows: list[dict[str, str]]) -> list[str]:
    """A row for each change: mean scores, and its Dice compared with that of unchanged scans."""
    by_change = {name: {row["scan"]: row for row in rows if row["changed"] == name} for name in CHANGES}
    before = {scan: float(row["dice"]) for scan, row in by_change[AS_IT_IS].items()}
    lines = ["| scans | Dice | difference | lower in | sensitivity | precision | lesion F1 |"]
    lines += ["| :-- | --: | --: | --: | --: | --: | --: |"]
    for name, own in by_change.items():
        if not own:
            continue
        dice, *others = (summarize(float(row[score]) for row in own.values()) for score in SCORES)
        differences = [float(row["dice"]) - before[scan] for scan, row in own.items()]
        cells = [CHANGES[name][0], str(dice), "", ""]
        if name != AS_IT_IS:
            cells[2:] = f"{np.mean(differences):+.3f}", f"{sum(d < 0 for d in differences)} of {len(differences)}"
        cells += [f"{each.mean:.3f}" for each in others]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main(run)
