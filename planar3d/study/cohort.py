"""Many scans, one network: while one is segmented, the next is prepared and the one before is written."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from planar3d.errors import Planar3DError, ScanError
from planar3d.evaluation.figures import overlay as draw_overlay
from planar3d.inference.predictor import Predictor, predictor
from planar3d.inference.prepared_scan import native_mask, predict_prepared
from planar3d.networks.weights_file import load_network
from planar3d.pipeline import one_ahead, one_behind
from planar3d.progress import Ticker, duration
from planar3d.recipes import Recipe
from planar3d.scans.prepare import Prepared, prepare
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
    method: str = "auto",
    engine: str = "auto",
    precision: str | None = None,
) -> list[Path]:
    """Segment scans and folders of scans, and write `<name>_mask.nii.gz` for each.

    No more than three scans are in memory, however many there are: one in preparation, one in the network, and one
    being written.

    Args:
        inputs: NIfTI files, or folders in which all files with FLAIR in their name are taken.
        model: a weights file, or the name of a published model.
        out: where the masks go.
        recipe: overrides the recipe that the weights file carries.
        batch_size: windows at once.
        overlay: write `<name>_overlay.png` as well.
        assume_affine: accept scans without geometry.
        notify: gets a line a scan, in the order of the inputs.
        method: see `predictor`.
        engine: see `predictor`.
        precision: see `predictor`.

    Returns:
        The inputs that failed; the reasons were notified.

    Raises:
        Planar3DError: the model cannot be used, or the only input cannot.
    """
    began = time.monotonic()
    named = name_outputs(find_scans(inputs))
    network, recipe = load_network(model, recipe)
    predict = predictor(network, recipe, method, engine, precision, batch_size)
    cohort = _Cohort(named, Path(out), recipe, predict, overlay, assume_affine, notify)
    with one_ahead(cohort.prepare, named) as coming, one_behind() as behind:
        for name, prepared in coming:
            behind(cohort.write, name, cohort.segment(name, prepared))
    if len(named) > 1:
        seconds, done = time.monotonic() - began, len(named) - len(cohort.failed)
        notify(f"{done} of {len(named)} scans in {duration(seconds)}, {3600 * done / seconds:.0f} scans an hour")
    if cohort.failed:
        failed = ", ".join(str(path) for path in cohort.failed)
        notify(f"{len(cohort.failed)} of {len(named)} scans failed: {failed}")
    return cohort.failed


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
    # Links are not followed: in data sets kept by git-annex they lead to files named by their digests.
    places = [Path(os.path.abspath(path)) for path in scans]
    twice = [path for path, place in zip(scans, places, strict=True) if places.count(place) > 1]
    if twice:
        raise ScanError(f"{twice[0]} was given twice; give every scan once.")
    for parts in range(1, max(len(place.parts) for place in places) + 1):
        names = ["_".join(place.parts[-parts:]).removesuffix(".gz").removesuffix(".nii") for place in places]
        if len(set(names)) == len(names):
            return dict(zip(names, scans, strict=True))
    alike = [str(path) for path, name in zip(scans, names, strict=True) if names.count(name) > 1]
    raise ScanError(f"{' and '.join(alike[:2])} would have masks of one name; rename one, or segment it by itself.")


@dataclass(frozen=True)
class _Segmented:
    """A scan (if it is still needed), its cube, and the lesion probabilities of that."""

    scan: Scan | None
    prepared: Prepared
    probabilities: np.ndarray


@dataclass(frozen=True)
class _Cohort:
    """What happens to each scan, in three steps."""

    named: dict[str, Path]
    out: Path
    recipe: Recipe
    predict: Predictor
    overlay: bool
    assume_affine: bool
    notify: Callable[[str], None]
    failed: list[Path] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def prepare(self, name: str) -> tuple[Scan | None, Prepared]:
        """Read and prepare a scan; its raw voxels are kept for a picture alone."""
        scan = read_scan(self.named[name], self.assume_affine)
        return scan if self.overlay else None, prepare(scan, self.recipe)

    def segment(self, name: str, prepared: Future[tuple[Scan | None, Prepared]]) -> _Segmented | Planar3DError:
        """Run the network on a prepared scan; an error of it, or of its preparation, is its result."""
        try:
            scan, cube = prepared.result()
            self._say_how()
            probabilities = predict_prepared(self.predict, cube, self.recipe, Ticker(self.notify, f"{name}, windows"))
            self._say_how()
            return _Segmented(scan, cube, probabilities)
        except Planar3DError as error:
            return error

    def _say_how(self) -> None:
        """Say method, engine and precision: at the beginning, and where the first scan has decided them."""
        if self.predict.description not in self.said:
            self.said.append(self.predict.description)
            self.notify(self.predict.description)

    def write(self, name: str, result: _Segmented | Planar3DError) -> None:
        """Write the mask of a scan, or say why there is none."""
        path = self.named[name]
        place = f"{list(self.named).index(name) + 1}/{len(self.named)}"
        try:
            if isinstance(result, Planar3DError):
                raise result
            mask = native_mask(result.probabilities, result.prepared, self.recipe)
            written = mask.save(self.out / f"{name}_mask.nii.gz")
            if result.scan is not None:
                draw_overlay(result.scan, mask, None, self.out / f"{name}_overlay.png", name)
            self.notify(f"{place}  {path} → {written}  {mask.voxels.sum() * _voxel_ml(mask):.1f} ml")
        except Planar3DError as error:
            if len(self.named) == 1:
                raise
            self.failed.append(path)
            self.notify(f"{place}  failed: {error}")


def _voxel_ml(mask: Scan) -> float:
    x, y, z = mask.spacing
    return x * y * z / 1000
