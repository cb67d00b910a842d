"""False alarms of a model in heads without lesions, and its detection of few lesions, on generated heads.

The first fourteen label maps, by name, are for training, the others for this script. The phantom of tissue maps is the
package's own (extra `study`). Each head is predicted once and decided by every rule. Heads that the file already has
are skipped, so an interrupted run can continue.

    python experiments/open_model/false_alarms.py --model ms-flair-open --maps MAPS --lesions MASKS --out OUT.csv \\
        --rule threshold=64 --rule threshold=32,least_mean=140
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from evaluate import given_scans

from planar3d.cli import main
from planar3d.commands.options import open_model
from planar3d.errors import RunError
from planar3d.evaluation.lesions import lesion_scores
from planar3d.evaluation.scores import score_scan
from planar3d.files import read_rows, write_csv
from planar3d.inference.segmenter import Segmenter
from planar3d.scans.nifti_header import header_with
from planar3d.scans.phantom import make_head
from planar3d.scans.phantom_scanner import CENTERS
from planar3d.scans.volume import Scan
from planar3d.sections import check_choice
from planar3d.training.synthesis import HeadGenerator, LesionShapes, read_anatomy
from planar3d.training.synthesis.anatomy import files_in

TRAINING_MAPS = 14
OWN = "own"  # the rule of the model's recipe
SLICE_MM = 6.0
ABOUT = ("model", "rule", "kind", "head", "cut", "voxel_mm")
COLUMNS = (*ABOUT, "lesions_ml", "marked_ml", "dice", "lesions", "found", "pieces", "false_pieces")
# Description, and settings of generated heads: generator settings, and range of the lesion volume in ml.
THICK: dict[str, Any] = {"acquisitions": (1.0, 0.0, 0.0)}
NONE: dict[str, Any] = {"without_lesions": 1.0}
FEW: dict[str, Any] = {"without_lesions": 0.0, "loads_ml": (0.5, 4.0)}
KINDS: dict[str, tuple[str, dict[str, Any], tuple[float, float]]] = {
    "none": ("no lesions", NONE, (0, 0)),
    "few": ("0.5 to 2 ml", FEW, (0.5, 2.0)),
    "none-thick": ("thick slices, no lesions", NONE | THICK, (0, 0)),
    "few-thick": ("thick slices, 0.5 to 2 ml", FEW | THICK, (0.5, 2.0)),
    "phantom": ("tissue-map phantom, thick slices, no lesions", {}, (0, 0)),
    "patient": ("patients", {}, (0, 0)),
}
HEADS = [kind for kind in KINDS if kind != "patient"]
Head = tuple[str, Scan, Scan, str]  # its name, the scan, the true mask, and how its brain was extracted


def run(
    maps: Annotated[Path, typer.Option("--maps", help="Folder of label maps, or of their compact files.")],
    lesions: Annotated[Path, typer.Option("--lesions", help="Folder of lesion masks in MNI space, or a compact file.")],
    out: Annotated[Path, typer.Option("--out", help="CSV with a line per head; lines are added.")],
    model: Annotated[str, typer.Option("--model", help="Weights file or published model.")] = "ms-flair-open",
    heads: Annotated[int, typer.Option("--heads", help="Heads of each kind; 0: only the scans.")] = 8,
    kinds: Annotated[str, typer.Option("--kinds", help="Kinds of heads.")] = ",".join(HEADS),
    rules: Annotated[list[str] | None, typer.Option("--rule", help="Settings of the recipe; default: none.")] = None,
    scans: Annotated[list[str] | None, typer.Option("--scan", help="name=scan,mask of a patient's scan.")] = None,
    engine: Annotated[str, typer.Option("--engine", help="As for planar3d predict.")] = "auto",
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Average a scan's probabilities with its mirror image's.")
    ] = False,
) -> None:
    """Write the marked volumes of every head by every rule, and print medians."""
    for kind in kinds.split(","):
        check_choice("--kinds", kind, HEADS, RunError)
    anatomies = [read_anatomy(path) for path in test_maps(maps)]
    generator = HeadGenerator(anatomies, LesionShapes.read(lesions))
    segmenter = Segmenter(open_model(model, None, ["mirrored=true"] if mirrored else []), engine=engine)
    name = Path(model).name.removesuffix(".weights.h5") + (", mirrored" if mirrored else "")
    rows: list[dict[str, Any]] = list(read_rows(out)) if out.is_file() else []
    patients = (("patient", (*given, "")) for given in given_scans(scans or []))
    for kind, (head, scan, mask, cut) in chain(patients, alternating(generator, kinds, heads)):
        done = {row["rule"] for row in rows if (row["model"], row["kind"], row["head"]) == (name, kind, head)}
        if not (missing := [rule for rule in rules or [OWN] if rule not in done]):
            continue
        found = segmenter.predict(segmenter.prepare({segmenter.images[0]: scan}))
        for rule in missing:
            recipe = found.recipe.with_settings([] if rule == OWN else rule.split(","))
            about = {"model": name, "rule": rule, "kind": kind, "head": head, "cut": cut}
            about["voxel_mm"] = "x".join(f"{mm:.2f}" for mm in scan.spacing)
            rows.append(about | marked(mask, replace(found, recipe=recipe).mask()))
        write_csv(out, COLUMNS, rows)
    typer.echo("\n".join(markdown(read_rows(out))))


def test_maps(folder: Path) -> list[Path]:
    """The label maps not used for training."""
    found = files_in(folder, ("*.nii.gz", "*.npz"), "label map")
    if len(found) <= TRAINING_MAPS:
        raise RunError(
            f"{folder} has {len(found)} label maps, but the first {TRAINING_MAPS} are for training; add more."
        )
    return found[TRAINING_MAPS:]


def alternating(generator: HeadGenerator, kinds: str, count: int) -> Iterator[tuple[str, Head]]:
    """The first head of each kind, then the second of each, so that an interrupted run has some of all."""
    names = kinds.split(",")
    made = [phantoms(count) if kind == "phantom" else generated(generator, kind, count) for kind in names]
    for together in zip(*made, strict=True):
        yield from zip(names, together, strict=True)


def generated(generator: HeadGenerator, kind: str, count: int) -> Iterator[Head]:
    """Heads of a kind by number, only those whose visible lesions have a volume within its range."""
    _, settings, (least, most) = KINDS[kind]
    drawing, seed = replace(generator, **settings), 0
    while count:
        head = drawing.generate(seed)
        if least <= head.load_ml <= most:
            yield f"{head.drawn['anatomy']}-{seed}", head.scan, head.mask, str(head.drawn["cut"])
            count -= 1
        seed += 1


def phantoms(count: int) -> Iterator[Head]:
    """The phantom's heads at its three centers, at half of their resolution, in axial slices of about 6 mm."""
    for number in range(count):
        center = CENTERS[number % len(CENTERS)]
        scan, _ = make_head(center, 0.0, 2.0, np.random.default_rng([0, number])).values()
        joined = round(SLICE_MM / scan.spacing[2])
        voxels = scan.voxels[:, :, : scan.voxels.shape[2] // joined * joined]
        thick = voxels.reshape(*voxels.shape[:2], -1, joined).mean(axis=3, dtype=np.float32)
        affine = scan.affine @ np.diag([1, 1, joined, 1])
        affine[:3, 3] += (joined - 1) / 2 * scan.affine[:3, 2]
        header = header_with(affine, thick.shape)
        yield f"{center.name}-{number}", Scan(thick, header), Scan(np.zeros(thick.shape, np.uint8), header), "none"


def marked(mask: Scan, found: Scan) -> dict[str, Any]:
    """Volumes and lesions of a head: true lesions, detected lesions, marked components, and false components."""
    scores = score_scan(mask.voxels, found.voxels, mask.affine)
    pieces = lesion_scores(mask.voxels, found.voxels, mask.affine)
    return {
        "lesions_ml": round(scores["reference_ml"], 3),
        "marked_ml": round(scores["prediction_ml"], 3),
        "dice": round(scores["dice"], 4),
        "lesions": pieces["reference_lesions"],
        "found": pieces["detected_lesions"],
        "pieces": pieces["prediction_lesions"],
        "false_pieces": pieces["prediction_lesions"] - pieces["confirmed_lesions"],
    }


def markdown(rows: list[dict[str, str]]) -> list[str]:
    """A row for each model and kind of head."""
    lines = ["| model | rule | heads | marked, median | largest | lesions found | false pieces a head | Dice |"]
    lines += ["| :-- | :-- | :-- | --: | --: | --: | --: | --: |"]
    for model, rule in dict.fromkeys((row["model"], row["rule"]) for row in rows):
        for kind, (words, *_) in KINDS.items():
            own = [row for row in rows if (row["model"], row["rule"], row["kind"]) == (model, rule, kind)]
            if not own:
                continue
            ml, false, lesions, found, dice = (
                np.array([float(row[column] or "nan") for row in own])
                for column in ("marked_ml", "false_pieces", "lesions", "found", "dice")
            )
            cells = [model, rule, f"{len(own)} {words}", f"{np.median(ml):.2f} ml", f"{ml.max():.2f} ml"]
            cells += [f"{found.sum() / lesions.sum():.2f} of {lesions.sum():.0f}" if lesions.any() else ""]
            cells += [f"{false.mean():.1f}", f"{np.mean(dice):.3f}" if lesions.any() else ""]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main(run)
