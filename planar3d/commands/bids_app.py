"""planar3d-bids: Segment lesions in the FLAIR scans of a BIDS data set, as a BIDS App on top of predict."""

import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import planar3d

try:
    from planar3d.cli import run_in_sentences
    from planar3d.commands.options import open_model, why_no_folder
    from planar3d.commands.output import list_failed, say
    from planar3d.errors import DatasetError, RunError
    from planar3d.extras import check_study_extra, is_installed
    from planar3d.wording import counted
except KeyboardInterrupt:  # later ones are the command's, see `interruptible`
    raise SystemExit(130) from None


def parser() -> argparse.ArgumentParser:
    """The standard arguments of BIDS Apps, and the model."""
    made = argparse.ArgumentParser("planar3d-bids", description=(__doc__ or "").partition(": ")[2])
    add = made.add_argument
    add("bids_dir", type=Path, help="a raw BIDS data set")
    add("output_dir", type=Path, help="the derivatives data set to write or to continue")
    add("analysis_level", choices=("participant", "group"), help="segment scans, or write tables and a report")
    labels: dict[str, Any] = {"nargs": "+", "default": [], "metavar": "LABEL"}
    add("--participant-label", "--participant_label", help="participants to segment, with or without sub-", **labels)
    add("--session-label", "--session_label", help="sessions to segment, with or without ses-", **labels)
    add("--model", default="ms-flair-open", help="weights file or published model; default: %(default)s")
    add("--recipe", help="name of a recipe, or a JSON file; default: the model's own")
    add("--overwrite", action="store_true", help="segment finished scans again and replace their outputs")
    add("--assume-affine", action="store_true", help="assume that scans without geometry are left-anterior-superior")
    add("-w", "--work-dir", "--work_dir", type=Path, help="folder for temporary files; default: the system's")
    add("--skip-bids-validation", "--skip_bids_validation", action="store_true", help="do not validate the data set")
    add("-v", "--version", action="version", version=f"planar3d-bids {planar3d.__version__}")
    return made


def run(words: Sequence[str] | None = None) -> int:
    """Run the requested analysis; returns 1 if some of the scans failed."""
    arguments = parser().parse_args(words)
    for folder in filter(None, (arguments.output_dir, arguments.work_dir)):
        if why := why_no_folder(folder):
            raise DatasetError(why)
    check_study_extra()  # for the reports
    if arguments.work_dir:
        arguments.work_dir.mkdir(parents=True, exist_ok=True)
        tempfile.tempdir = str(arguments.work_dir)
    if arguments.analysis_level == "group":  # reads only what participant wrote
        return group(arguments.output_dir)
    if not arguments.bids_dir.is_dir():
        raise DatasetError(f"{arguments.bids_dir} is not a folder; name a raw BIDS data set.")
    if not arguments.skip_bids_validation:
        validate(arguments.bids_dir, say)
    return participant(arguments)


def participant(arguments: argparse.Namespace) -> int:
    """Segment the scans of the participants and sessions; any number of processes may share the output folder."""
    from planar3d.study.cohort import segment_all
    from planar3d.study.segmented import Request

    wanted = {"sub": arguments.participant_label, "ses": arguments.session_label}
    for key, place, what in (("sub", "sub-", "participants"), ("ses", "sub-*/ses-", "sessions")):
        wanted[key] = [label.removeprefix(f"{key}-") for label in wanted[key]]
        for label in wanted[key]:
            if not any(arguments.bids_dir.glob(place + glob.escape(label))):
                raise DatasetError(f"{arguments.bids_dir} has no folder {place}{label}; name {what} of the data set.")

    def takes(name: str) -> bool:
        entities = dict(part.split("-", 1) for part in name.split("_") if "-" in part)
        return all(entities.get(key) in labels for key, labels in wanted.items() if labels)

    how = {name: getattr(arguments, name) for name in ("assume_affine", "overwrite")}
    written = Request(**how, probability=True, report=True, instances=True)
    model = open_model(arguments.model, arguments.recipe)
    done = segment_all([arguments.bids_dir], model, arguments.output_dir, written, say, takes=takes)
    return int(bool(done.failed))


def group(out: Path) -> int:
    """Write the tables and the report of all segmented scans."""
    from planar3d.study.cohort_folder import CohortFolder
    from planar3d.study.cohort_report import write_cohort_report, write_cohort_tables

    cohort = CohortFolder(out).opened()
    with cohort.alone(say):
        standing, records = cohort.read()
        write_cohort_tables(out, records, standing.failed)
        write_cohort_report(out, records, standing.failed)
    list_failed(standing.failed)
    say(str(standing))
    return 0


def validate(folder: Path, notify: Callable[[str], None]) -> None:
    """Run the BIDS validator on a data set, if it is installed; validation errors raise a `DatasetError`."""
    if not is_installed("bids_validator_deno"):
        notify("The data set is not validated; to validate it: pip install 'planar3d[bids]'")
        return
    program = "import sys; from bids_validator_deno import cli; sys.exit(cli())"
    command = [sys.executable, "-P", "-c", program, str(folder), "--format", "json"]
    silent = os.environ | {"DENO_NO_UPDATE_CHECK": "1"}  # Deno, which runs it, would ask its makers for a newer version
    done = subprocess.run(command, capture_output=True, env=silent)
    try:
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (ValueError, KeyError):
        said = done.stderr[-200:].decode(errors="replace")
        raise RunError(f"The BIDS validator failed on {folder}: {said} Use --skip-bids-validation.") from None
    wrong = [issue for issue in issues if issue["severity"] == "error"]
    if wrong:
        first = f"{wrong[0]['code']} {wrong[0].get('location', '')}".strip()
        raise DatasetError(
            f"{folder} is not a valid BIDS data set: {counted(wrong, 'error')}, the first {first}. Fix it, or use "
            "--skip-bids-validation."
        )


def main() -> None:
    """The command planar3d-bids."""
    sys.exit(run_in_sentences(run))
