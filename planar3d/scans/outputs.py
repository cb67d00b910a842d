"""What is written for a scan, and where."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outputs:
    """The files of one scan.

    Attributes:
        record: JSON; in a BIDS data set the sidecar of the mask.
        mask: on the scan's own grid.
        probability: of lesion, on the scan's own grid.
        lesions: a table with a line a lesion; tab-separated where its name ends in .tsv.
        overlay: a picture.
        report: a page.
    """

    record: Path
    mask: Path
    probability: Path
    lesions: Path
    overlay: Path
    report: Path


def plain_names(name: str, out: Path) -> Outputs:
    """The outputs of a scan of that name, all in the folder `out`."""
    return Outputs(
        record=out / f"{name}.json",
        mask=out / f"{name}_mask.nii.gz",
        probability=out / f"{name}_probability.nii.gz",
        lesions=out / f"{name}_lesions.csv",
        overlay=out / f"{name}_overlay.png",
        report=out / f"{name}_report.html",
    )
