"""The output files of a scan, and their paths."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outputs:
    """The files of one scan."""

    record: Path  # JSON; in a BIDS data set the sidecar of the mask
    mask: Path  # on the scan's own grid
    probability: Path  # of lesion, on the scan's own grid
    lesions: Path  # a table with one line per lesion; tab-separated if its name ends in .tsv
    overlay: Path  # a picture
    report: Path  # a page
    dicom_seg: Path  # the lesions as a DICOM Segmentation object
    dicom_sr: Path  # their count and volumes as a DICOM structured report
    label_tables: Path  # names and colours of its labels for ITK-SNAP
    fsleyes: Path  # the same for FSLeyes
    freeview: Path  # the same for FreeView
    same_format: Path  # the mask in the scan's own format; the mask itself where that is NIfTI or DICOM
    instances: Path  # the number of the lesion that each voxel is of, on the scan's own grid

    def moved(self, folder: Path, to: Path) -> "Outputs":
        """The same places in the folder `to` as in `folder`."""
        return Outputs(**{name: to / path.relative_to(folder) for name, path in vars(self).items()})


def plain_names(name: str, out: Path, own: str = ".nii.gz") -> Outputs:
    """The outputs of a scan of that name in the folder `out`; `own` is the ending of a mask in its format."""
    return Outputs(
        record=out / f"{name}.json",
        mask=out / f"{name}_mask.nii.gz",
        probability=out / f"{name}_probability.nii.gz",
        lesions=out / f"{name}_lesions.csv",
        overlay=out / f"{name}_overlay.png",
        report=out / f"{name}_report.html",
        dicom_seg=out / f"{name}_seg.dcm",
        dicom_sr=out / f"{name}_sr.dcm",
        label_tables=out / f"{name}_mask_itksnap.txt",
        fsleyes=out / f"{name}_mask_fsleyes.lut",
        freeview=out / f"{name}_mask_freeview.txt",
        same_format=out / f"{name}_mask{own}",
        instances=out / f"{name}_instances.nii.gz",
    )
