"""BIDS data sets: their raw FLAIR scans, and the derivatives data set that masks of these make."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import planar3d
from planar3d.errors import ScanError
from planar3d.files import write_json, write_text
from planar3d.scans.outputs import Outputs

DESCRIPTION = "dataset_description.json"
_SCANS = tuple(f"sub-*/{session}anat/sub-*_FLAIR.nii{zipped}" for session in ("", "ses-*/") for zipped in ("", ".gz"))
_VERSION = "1.10.0"  # of the standard, whose rules for derivatives the names and fields here follow
_SOURCE = "raw"  # what the derivatives call the data set they were made of: bids:raw:sub-01/anat/…
# What the standard has no names for: lesion tables, pictures and pages.
_IGNORED = "*_lesions.tsv\n*.html\nsub-*/figures\n"


def is_bids(folder: Path) -> bool:
    """Whether a folder says that it is a BIDS data set, or has FLAIR scans where such a data set has them."""
    return (folder / DESCRIPTION).is_file() or any(True for pattern in _SCANS for _ in folder.glob(pattern))


def find_bids_scans(dataset: Path) -> list[Path]:
    """The raw FLAIR scans of a data set; its folders derivatives and sourcedata are not looked into.

    Raises:
        ScanError: the data set has none, or is itself a derivatives data set.
    """
    kind = _read_description(dataset).get("DatasetType", "raw")
    if kind != "raw":
        raise ScanError(
            f"{dataset} is a BIDS data set of the type {kind}; the raw one is needed. Give that, or name the scans."
        )
    scans = sorted(path for pattern in _SCANS for path in dataset.glob(pattern))
    if not scans:
        raise ScanError(
            f"{dataset} is a BIDS data set without FLAIR scans: sub-*/[ses-*/]anat/*_FLAIR.nii[.gz] were looked for. "
            "Name the scans themselves."
        )
    return scans


def derivative_names(dataset: Path, scan: Path, out: Path) -> Outputs:
    """Where the outputs of a raw scan lie in the derivatives data set `out`; its entities are kept, a label is added.

    The mask's record is its sidecar. The standard has a place for mask and probabilities; the others are listed in
    the `.bidsignore` that `write_dataset_description` writes.
    """
    within = scan.relative_to(dataset)
    stem = f"{entities(scan)}_label-lesion"
    beside, figures = out / within.parent / stem, out / within.parts[0] / "figures" / stem
    return Outputs(
        record=Path(f"{beside}_mask.json"),
        mask=Path(f"{beside}_mask.nii.gz"),
        probability=Path(f"{beside}_probseg.nii.gz"),
        lesions=Path(f"{beside}_lesions.tsv"),
        overlay=Path(f"{figures}_overlay.png"),
        report=Path(f"{figures}_report.html"),
    )


def entities(scan: Path) -> str:
    """The name of a raw scan without its suffix: sub-01_ses-2_acq-3D."""
    return scan.name.removesuffix(".gz").removesuffix("_FLAIR.nii")


def sidecar(dataset: Path, scan: Path, description: str) -> dict[str, Any]:
    """The fields that the standard wants beside a lesion mask, or a map of lesion probabilities, of a raw scan."""
    source = f"bids:{_SOURCE}:{scan.relative_to(dataset).as_posix()}"
    return {"Description": description, "Type": "Lesion", "Sources": [source], "SpatialReference": source}


def write_dataset_description(out: Path, dataset: Path) -> Path:
    """Make `out` a derivatives data set of `dataset`, whose link is relative, so that both can move together.

    A data set that this package began is gone on with: what people added to its description stays, and the version of
    the package is noted if it is another one.

    Returns:
        The description.

    Raises:
        ScanError: `out` is a data set of another origin or of other scans.
    """
    path = out / DESCRIPTION
    if out.resolve() == dataset.resolve():
        raise ScanError(
            f"{out} is the data set of the scans; choose another folder, e.g. {out / 'derivatives/planar3d'}."
        )
    link = Path(os.path.relpath(dataset, out)).as_posix()
    made_by = {"Name": "planar3d", "Version": planar3d.__version__}
    before = _read_description(out)
    if not before:
        description = {
            "Name": f"Lesion masks of {_read_description(dataset).get('Name') or Path(os.path.abspath(dataset)).name}",
            "BIDSVersion": _VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [made_by],
            "SourceDatasets": [{"URL": link}],
            "DatasetLinks": {_SOURCE: link},
        }
    else:
        makers = _makers(before)
        if "planar3d" not in [maker.get("Name") for maker in makers]:
            raise ScanError(f"{out} is a data set that planar3d has not made ({path.name}); choose another folder.")
        links = before.get("DatasetLinks")
        source = links.get(_SOURCE) if isinstance(links, dict) else None
        if source != link:
            raise ScanError(f"{out} holds masks of the data set {source}, not of {link}; choose another folder.")
        description = before | {"GeneratedBy": makers if made_by in makers else [*makers, made_by]}
    if description != before:
        write_json(path, description)
    if not (out / ".bidsignore").exists():
        write_text(out / ".bidsignore", _IGNORED)
    return path


def _makers(description: dict[str, Any]) -> Sequence[dict[str, Any]]:
    makers = description.get("GeneratedBy")
    return [maker for maker in makers if isinstance(maker, dict)] if isinstance(makers, list) else []


def _read_description(dataset: Path) -> dict[str, Any]:
    """The content of dataset_description.json; empty if there is none."""
    path = dataset / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ScanError(f"{path} cannot be read ({error}). Mend it, or name the scans themselves.") from None
    if not isinstance(content, dict):
        raise ScanError(f"{path} holds no JSON object. Mend it, or name the scans themselves.")
    return content
