"""BIDS data sets: raw FLAIR scans, and the derivatives data set of their masks."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import planar3d
from planar3d.errors import Planar3DError, ScanError
from planar3d.files import parse_json, write_csv, write_json, write_text
from planar3d.scans.image_files import files_within, is_scan, stem, suffix, why_unusable, without_copies
from planar3d.scans.labels import Labels, names_of_labels
from planar3d.scans.outputs import Outputs

DESCRIPTION = "dataset_description.json"
NOT_RAW = {"derivatives", "sourcedata", "code"}
_SUBJECTS = ("sub-*/anat/*", "sub-*/ses-*/anat/*")
# A scan is named after the subject and session in whose folders it is.
_RAW = re.compile(r"(sub-[^/]+)/(?:(ses-[^/]+)/|(?!ses-))(?:[^/]+/)*\1_(?(2)\2_)(?:[^/]+_)?flair", re.IGNORECASE)
_VERSION = "1.10.0"  # of the standard; names and fields follow its rules for derivatives
_SOURCE = "raw"  # name of the raw data set in the derivatives: bids:raw:sub-01/anat/…
# The standard has no names for tables, pictures and pages.
_IGNORED = "*_lesions.tsv\n*.csv\n*_itksnap.txt\n*_fsleyes.lut\n*_freeview.txt\n*.html\nsub-*/figures\n"


def is_bids(folder: Path) -> bool:
    """Whether a folder declares itself a BIDS data set, or has FLAIR scans where BIDS places them."""
    if os.path.isfile(folder / DESCRIPTION):
        return True
    paths = (path for pattern in _SUBJECTS for path in folder.glob(pattern))
    return any(suffix(path) and _RAW.fullmatch(_within(folder, path)) for path in paths)


def find_bids_scans(dataset: Path) -> dict[Path, str]:
    """The raw FLAIR scans of a data set, without its folders derivatives and sourcedata.

    Each has the reason why it cannot be used, empty if it can: files with the suffix FLAIR in a wrong place or another
    format cannot.

    Raises:
        ScanError: the data set has none, or is itself a derivatives data set.
    """
    kind = str(read_json_object(dataset / DESCRIPTION).get("DatasetType", "raw"))
    if kind.lower() != "raw":
        raise ScanError(
            f"{dataset} is a BIDS data set of type {kind}; the raw one is needed. Name that, or the scans themselves."
        )
    files, closed = files_within(dataset, leave=NOT_RAW)
    named = [path for path in files if is_scan(path) and "flair" in stem(path).rpartition("_")[2].lower()]
    scans = dict(sorted(({path: _why_no_scan(dataset, path) for path in without_copies(named)} | closed).items()))
    if not scans:
        raise ScanError(
            f"{dataset} is a BIDS data set without FLAIR scans, sub-*/[ses-*/]anat/*_FLAIR.nii[.gz]. Name the scans."
        )
    return scans


def _why_no_scan(dataset: Path, path: Path) -> str:
    if _RAW.fullmatch(_within(dataset, path)):
        return why_unusable(path)
    return (
        f"{path} does not have the name or place of a FLAIR scan in BIDS, e.g. sub-01/anat/sub-01_FLAIR.nii.gz. Rename "
        "or move it, or name the scans themselves."
    )


def _within(dataset: Path, path: Path) -> str:
    """The path inside the data set, without the file's suffix."""
    return path.with_name(stem(path)).relative_to(dataset).as_posix()


def derivative_names(dataset: Path, scan: Path, out: Path, several: bool = False) -> Outputs:
    """The paths of a raw scan's outputs in the derivatives data set `out`: its entities with a label added.

    The mask's record is its sidecar. A map of several labels is a discrete segmentation in the standard. The standard
    covers masks, segmentations and probabilities; other outputs are listed in the `.bidsignore` written by
    `write_dataset_description`.
    """
    within = scan.relative_to(dataset)
    label, mask = ("seg-targets", "dseg") if several else ("label-lesion", "mask")
    place, figures = within.parent / entities(scan), Path(within.parts[0], "figures", entities(scan))
    parts = {"entities": place, "beside": f"{place}_{label}", "masks": f"{place}_{label}_{mask}"}
    return Outputs.within(out, "bids", **parts, figures=f"{figures}_{label}", own=".nii.gz")


def entities(scan: Path) -> str:
    """The name of a raw scan without its suffix: sub-01_ses-2_acq-3D."""
    return stem(scan).rpartition("_")[0]


def sidecar(dataset: Path, scan: Path, description: str, type: str = "Lesion") -> dict[str, Any]:
    """The sidecar fields that the standard requires for a mask or probability map of a raw scan."""
    source = f"bids:{_SOURCE}:{scan.relative_to(dataset).as_posix()}"
    named = {"Type": type} if type else {}
    return {"Description": description, **named, "Sources": [source], "SpatialReference": source}


def sidecars(image: Path) -> tuple[Path, Path]:
    """The paths of an output image's sidecar and of its table."""
    name = str(image).removesuffix(".nii.gz")
    return Path(f"{name}.json"), Path(f"{name}.tsv")


def write_sidecars(
    dataset: Path, scan: Path, outputs: Outputs, scored: Mapping[str, Labels], probability: bool
) -> dict[str, Any]:
    """Write the sidecars and tables that the standard requires for the outputs of a raw scan.

    `scored` are the targets of its mask by name, with their labels; for several, a table of their meaning is written.
    The fields of the mask's own sidecar, which is its record, are returned.
    """
    several = len(scored) > 1
    sought, type = (", ".join(scored), "") if several else ("lesion", "Lesion")
    if probability:
        meaning = f"Probability of {sought.replace(', ', ' or ')}, in [0, 1]."
        write_json(sidecars(outputs.probability)[0], sidecar(dataset, scan, meaning, type))
    if not several:
        return sidecar(dataset, scan, "Lesions found by a network.")
    rows = [{"index": label, "name": name} for label, name in names_of_labels(scored).items()]
    write_csv(sidecars(outputs.mask)[1], ["index", "name"], rows)
    return sidecar(dataset, scan, f"Labels found by a network: {sought}.", "")


def write_instance_sidecars(dataset: Path, scan: Path, outputs: Outputs, lesions: Sequence[Mapping[str, Any]]) -> None:
    """Write the sidecar and the table of a map of lesions, each with its number, `lesion`, and its `volume_ml`."""
    about, table = sidecars(outputs.instances)
    # The map and its table share a sidecar.
    column = {"volume_ml": {"Description": "Volume of the lesion", "Units": "mL"}}
    write_json(about, sidecar(dataset, scan, "Lesions found by a network, one label each.", "") | column)
    rows = [
        {"index": lesion["lesion"], "name": f"lesion {lesion['lesion']}", "volume_ml": round(lesion["volume_ml"], 6)}
        for lesion in lesions
    ]
    write_csv(table, ["index", "name", "volume_ml"], rows)


def write_dataset_description(out: Path, dataset: Path) -> Path:
    """Make `out` a derivatives data set of `dataset`, with a relative link, so that both can be moved together.

    A data set started by this package is continued: additions to its description are kept, and another version of the
    package is noted.

    Raises:
        ScanError: `out` is a data set of another origin or of other scans.
    """
    path = out / DESCRIPTION
    raw, derived = os.path.realpath(dataset), os.path.realpath(out)  # as .. leaves the folder of a link's target
    try:
        link = Path(os.path.relpath(raw, derived)).as_posix()
    except ValueError:  # no relative path leads to another drive of Windows
        link = Path(raw).as_posix()
    if raw == derived:
        raise ScanError(
            f"{out} is the data set of the scans; choose another output folder, e.g. {out / 'derivatives/planar3d'}."
        )
    made_by = {"Name": "planar3d", "Version": planar3d.__version__}
    before = read_json_object(path, advice="Fix it, or choose another folder.")
    if not before:
        name = read_json_object(dataset / DESCRIPTION).get("Name") or Path(os.path.abspath(dataset)).name
        description = {
            "Name": f"Lesion masks of {name}",
            "BIDSVersion": _VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [made_by],
            "SourceDatasets": [{"URL": link}],
            "DatasetLinks": {_SOURCE: link},
        }
    else:
        makers = _makers(before)
        if not made_by_planar3d(before):
            raise ScanError(f"{out} is a data set that planar3d did not create ({path.name}); choose another folder.")
        links = before.get("DatasetLinks")
        source = links.get(_SOURCE) if isinstance(links, dict) else None
        if not isinstance(source, str) or os.path.realpath(out / source) != raw:
            raise ScanError(f"{out} holds masks of the data set {source}, not of {link}; choose another folder.")
        description = before | {"GeneratedBy": makers if made_by in makers else [*makers, made_by]}
    if description != before:
        write_json(path, description)
    if not (out / ".bidsignore").exists():
        write_text(out / ".bidsignore", _IGNORED)
    return path


def made_by_planar3d(about: dict[str, Any]) -> bool:
    """Whether a data set's description or a file's sidecar names this package as its origin."""
    versions = about.get("versions")  # in a record, the sidecar of a mask
    return any(maker.get("Name") == "planar3d" for maker in _makers(about)) or (
        isinstance(versions, dict) and "planar3d" in versions
    )


def read_json_object(
    path: Path, refusal: type[Planar3DError] = ScanError, advice: str = "Fix it, or name the scans themselves."
) -> dict[str, Any]:
    """The content of a description or a sidecar; empty if there is none, and a `refusal` if it is not a JSON object."""
    try:
        content = parse_json(path) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise refusal(f"{path} cannot be read ({error}). {advice}") from None
    if not isinstance(content, dict):
        raise refusal(f"{path} is not a JSON object. {advice}")
    return content


def _makers(description: dict[str, Any]) -> Sequence[dict[str, Any]]:
    makers = description.get("GeneratedBy")
    return [maker for maker in makers if isinstance(maker, dict)] if isinstance(makers, list) else []
