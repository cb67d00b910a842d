"""Agreement of periventricular lesions between ventricles detected in the scan and ventricles drawn by experts.

    python experiments/lesion_regions/agreement.py DATA ANATOMY --out agreement.csv

DATA is a BIDS data set with lesion masks in derivatives/manual; ANATOMY has SUB/SUB_label-ventricle_mask.nii.gz.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from planar3d.cli import main
from planar3d.evaluation.lesion_regions import name_regions
from planar3d.evaluation.lesion_table import lesion_table
from planar3d.files import write_csv
from planar3d.scans.layouts import find_cases
from planar3d.scans.volume import read_mask, read_scan

COLUMNS = ("scan", "lesion", "volume_ml", "found", "sure", "by_experts")


def run(data: Path, anatomy: Path, out: Annotated[Path, typer.Option()] = Path("agreement.csv")) -> None:
    """Write one row per lesion, and print the agreement."""
    rows = []
    for case in find_cases(data).cases:
        subject = case.id.partition("_")[0]
        scan = read_scan(case.images["flair"])
        mask = read_mask(case.label_map or "", scan)
        drawn = read_mask(anatomy / subject / f"{subject}_label-ventricle_mask.nii.gz", scan)
        lesions = lesion_table(mask)
        by_experts = name_regions(lesions, scan, mask, drawn.voxels > 0)
        for found, expert in zip(name_regions(lesions, scan, mask), by_experts, strict=True):
            about = (found.lesion, round(found.volume_ml, 4), found.region, found.region_sure, expert.region)
            rows.append(dict(zip(COLUMNS, (subject, *about), strict=True)))
    write_csv(out, COLUMNS, rows)
    for of, chosen in {
        "all": rows,
        "sure": [row for row in rows if row["sure"]],
        "0.1 ml and more": [row for row in rows if float(row["volume_ml"] or 0) >= 0.1],
    }.items():
        ours, theirs = (np.array([r[who] == "periventricular" for r in chosen]) for who in ("found", "by_experts"))
        by_chance = ours.mean() * theirs.mean() + (1 - ours.mean()) * (1 - theirs.mean())
        agreed = np.mean(ours == theirs)
        typer.echo(
            f"{of}: {len(chosen)} lesions, agreement {agreed:.3f}, kappa {(agreed - by_chance) / (1 - by_chance):.3f}, "
            f"sensitivity {ours[theirs].mean():.3f}, specificity {1 - ours[~theirs].mean():.3f}"
        )


if __name__ == "__main__":
    main(run)
