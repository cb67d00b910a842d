"""A scan and its mask in a notebook, with niivue."""

from pathlib import Path
from typing import Any

from planar3d.disk import temporary_place
from planar3d.extras import extra
from planar3d.scans.volume import Scan, read_labels, read_scan


def show(scan: str | Path | Scan, mask: str | Path | Scan | None = None, opacity: float = 0.5) -> Any:
    """Show a scan in a notebook, in three planes, with a mask or label map as overlay.

    Args:
        scan: a file, or a scan from `read_scan`.
        mask: a file, or a mask from `segment`; both are placed by their own headers.
        opacity: opacity of the mask, in [0, 1].

    Returns:
        A widget, `ipyniivue.NiiVue`, which has further settings.

    Raises:
        ScanError: a file cannot be used.
        Planar3DError: ipyniivue is not installed.

    Example:
        >>> show("scan.nii.gz", segment("scan.nii.gz", "ms-flair-open"))  # doctest: +SKIP
    """
    with extra("notebook"):
        from ipyniivue import NiiVue
    volume = scan if isinstance(scan, Scan) else read_scan(scan)
    shown: list[dict[str, Any]] = [{"data": _stored(volume), "name": "scan.nii.gz"}]
    if mask is not None:
        labels = mask if isinstance(mask, Scan) else read_labels(mask)
        colours = "red" if labels.voxels.max() <= 1 else "itksnap"
        shown.append({"data": _stored(labels), "name": "mask.nii.gz", "colormap": colours, "opacity": opacity})
    widget = NiiVue()
    widget.load_volumes(shown)
    return widget


def _stored(scan: Scan) -> bytes:
    with temporary_place() as place:
        return scan.save(place / "scan.nii.gz").read_bytes()
