"""Many scans, one network: each segmented and written, a bad one reported and passed over."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from planar3d.errors import Planar3DError, ScanError
from planar3d.evaluation.figures import overlay as draw_overlay
from planar3d.inference.segment import segment
from planar3d.networks.weights_file import load_network
from planar3d.progress import Ticker
from planar3d.recipes import Recipe
from planar3d.scans.volume import Scan, read_scan


def segment_all(
    inputs: Sequence[str | Path],
    model: str | Path,
    out: str | Path,
    recipe: Recipe | None = None,
    batch_size: int = 1,
    overlay: bool = False,
    assume_affine: bool = False,
    notify: Callable[[str], None] = print,
) -> list[Path]:
    """Segment scans and folders of scans, and write `<name>_mask.nii.gz` for each.

    Args:
        inputs: NIfTI files, or folders in which all files with FLAIR in their name are taken.
        model: a weights file.
        out: where the masks go.
        recipe: overrides the recipe that the weights file carries.
        batch_size: windows at once.
        overlay: write `<name>_overlay.png` as well.
        assume_affine: accept scans without geometry.
        notify: gets a line a scan.

    Returns:
        The inputs that failed; the reasons were notified.

    Raises:
        Planar3DError: the model cannot be used, or the only input cannot.
    """
    named = name_outputs(find_scans(inputs))
    loaded = load_network(model, recipe)
    failed = []
    for number, (name, path) in enumerate(named.items(), start=1):
        try:
            scan = read_scan(path, assume_affine)
            mask = segment(scan, loaded, batch_size=batch_size, progress=Ticker(notify, f"{name}, windows"))
            written = mask.save(Path(out) / f"{name}_mask.nii.gz")
            if overlay:
                draw_overlay(scan, mask, None, Path(out) / f"{name}_overlay.png", name)
            volume = mask.voxels.sum() * _voxel_ml(mask)
            notify(f"{number}/{len(named)}  {path} → {written}  {volume:.1f} ml")
        except Planar3DError as error:
            if len(named) == 1:
                raise
            failed.append(path)
            notify(f"{number}/{len(named)}  failed: {error}")
    if failed:
        notify(f"{len(failed)} of {len(named)} scans failed: {', '.join(str(path) for path in failed)}")
    return failed


def find_scans(inputs: Sequence[str | Path]) -> list[Path]:
    """The scans meant: files as they are, and of folders every NIfTI file with FLAIR in its name."""
    scans = []
    for path in map(Path, inputs):
        if not path.is_dir():
            scans.append(path)
            continue
        found = sorted(p for p in path.rglob("*") if "flair" in p.name.lower() and p.name.endswith((".nii", ".nii.gz")))
        if not found:
            raise ScanError(f"{path} holds no .nii or .nii.gz file with FLAIR in its name; name the scans themselves.")
        scans += found
    return scans


def name_outputs(scans: Sequence[Path]) -> dict[str, Path]:
    """Give each scan a name of its own: its file's, with as many of its folders as are needed to tell it apart."""
    for parts in itertools.count(1):
        names = ["_".join(path.resolve().parts[-parts:]).removesuffix(".gz").removesuffix(".nii") for path in scans]
        if len(set(names)) == len(names):
            return dict(zip(names, scans, strict=True))
        if parts > max(len(path.resolve().parts) for path in scans):
            twice = next(path for path in scans if scans.count(path) > 1)
            raise ScanError(f"{twice} was given twice; give every scan once.")
    raise AssertionError


def _voxel_ml(mask: Scan) -> float:
    x, y, z = mask.spacing
    return x * y * z / 1000
