"""White-matter lesions of patients by FreeSurfer's SAMSEG, from FLAIR alone, with its processor time and memory.

    python3.11 -m venv SAMSEG && SAMSEG/bin/pip install samseg==0.4a0 "numpy<2" "tensorflow<2.19"
    python experiments/rivals/samseg.py --data DATA/ms_flair --program SAMSEG/bin/run_samseg --out MASKS

The options are those of its help text for FLAIR: lesions brighter than cortex, pallidum apart from white matter. The
method is that of Cerri et al. 2021. A patient whose mask exists is skipped. MASKS/samseg then has a mask for each
patient, for `score.py --masks MASKS`.
"""

import os
import subprocess
from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import typer

from planar3d.cli import main
from planar3d.errors import RunError
from planar3d.files import read_rows, write_csv, written_beside
from planar3d.scans.layouts import find_cases
from planar3d.sections import check_choice

TABLE = Path(__file__).with_name("samseg.csv")
COLUMNS = ("scan", "processor_seconds", "peak_gib")
OPTIONS = ("--lesion", "--lesion-mask-pattern", "1", "--pallidum-separate")
LESION = 99  # of FreeSurfer's labels
PATIENTS = "sub-104252,sub-105074,sub-105755"


def run(
    data: Annotated[Path, typer.Option("--data", help="Data set with these patients.")],
    program: Annotated[Path, typer.Option("--program", help="run_samseg of a separate environment.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for masks and samseg's own files.")],
    patients: Annotated[str, typer.Option("--patients", help="Patients, separated by commas.")] = PATIENTS,
    threads: Annotated[int, typer.Option("--threads", help="Threads of samseg.")] = 2,
) -> None:
    """Segment the patients one after another, and add a row for each to samseg.csv."""
    cases = find_cases(data).by_id()
    for patient in patients.split(","):
        check_choice("--patients", patient, cases, RunError)
        mask = out / "samseg" / f"{patient}_mask.nii.gz"
        if mask.is_file():
            continue
        folder = out / "samseg" / patient
        folder.mkdir(parents=True, exist_ok=True)
        words = ["--input", cases[patient].images["flair"], "--output", folder, *OPTIONS, "--threads", str(threads)]
        row = {"scan": patient, **measured([program, *words], folder / "log.txt")}
        labels = nib.MGHImage.from_filename(folder / "seg.mgz")
        lesions = (np.asarray(labels.dataobj) == LESION).astype(np.uint8)
        before = read_rows(TABLE) if TABLE.is_file() else []
        write_csv(TABLE, COLUMNS, [*(old for old in before if old["scan"] != patient), row])
        with written_beside(mask) as temporary:
            nib.save(nib.Nifti1Image(lesions, labels.affine), temporary)
        typer.echo(row)


def measured(words: list, log: Path) -> dict[str, float]:
    """Processor seconds and peak GiB of a program."""
    with log.open("w") as text:
        process = subprocess.Popen(words, stdout=text, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{words[0]} ended with {os.waitstatus_to_exitcode(status)}; see {log}.")
    return {"processor_seconds": round(used.ru_utime + used.ru_stime), "peak_gib": round(used.ru_maxrss / 2**20, 1)}


if __name__ == "__main__":
    main(run)
