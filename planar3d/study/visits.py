"""Two visits of one patient: which lesions are new, enlarging, shrinking, gone or stable."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from planar3d.errors import RunError
from planar3d.evaluation.canvas import canvas, default_style, png_of
from planar3d.evaluation.figures import grey_window
from planar3d.evaluation.lesion_table import lesion_labels, lesion_table
from planar3d.evaluation.quality import QualityWarning
from planar3d.files import read_json, write_json, written_together
from planar3d.locks import alone_with
from planar3d.scans.registration import ONE_PATIENT, register
from planar3d.scans.slice_folders import visit_of
from planar3d.scans.volume import Scan
from planar3d.study.page import picture_url, write_page
from planar3d.study.records import record_of, refuse_other

CHANGES = ("new", "enlarging", "shrinking", "gone", "stable", "not covered")
_RELATIVE, _LEAST_ML = 0.25, 0.01  # least change, relative to the larger volume and absolute
_ROUNDING = 1 + 1e-5  # Headers have float32 edges: 3 voxels of 4 must be the same change at every voxel size.
_COVERED = 0.5  # share of a lesion that the other visit must cover for it to count as gone or new
_PICTURED, _AROUND_MM = 24, 35.0  # lesions pictured on a page, and mm on each side of them
_COLOUR = "#E69F00"


class Change(NamedTuple):
    """The change of a lesion, or of several that touch in one of the visits."""

    change: str  # one of `CHANGES`; "not covered": outside the other visit's field of view
    baseline: tuple[int, ...]  # numbers in the lesion table of the visit
    followup: tuple[int, ...]
    baseline_ml: float  # their volume, on the visit's own grid
    followup_ml: float
    place_mm: tuple[float, float, float]  # center in the baseline's world coordinates


def compare_lesions(baseline: Scan, followup: Scan, to_followup: np.ndarray) -> list[Change]:
    """Match the lesions of two masks, and classify the change of each.

    Lesions that share a voxel are matched, also across visits. Volumes are measured in the masks themselves, without
    resampling. A lesion is enlarging or shrinking if the volumes, each without the part beyond the other visit's field
    of view, differ by more than 25 % of the larger and 0.01 ml.

    Args:
        baseline, followup: masks, each on the grid of its own scan.
        to_followup: 4×4 from world coordinates of the baseline to those of the follow-up.

    Returns:
        The changes by kind, the largest first.
    """
    masks, ways = (baseline, followup), (to_followup, np.linalg.inv(to_followup))
    tables, labels = [lesion_table(mask) for mask in masks], [lesion_labels(mask) for mask in masks]
    counts = [len(table) for table in tables]
    pairs, covered = set(), []
    for here, (mask, way) in enumerate(zip(masks, ways, strict=True)):
        numbers, other, inside = _seen_from(mask.affine, labels[here], masks[1 - here].affine, labels[1 - here], way)
        met = np.unique(np.stack([numbers, other])[:, other > 0], axis=1)
        pairs |= {tuple(pair if here == 0 else pair[::-1]) for pair in (met - 1).T.tolist()}
        covered.append(np.bincount(numbers, inside, counts[here] + 1) / np.maximum(np.bincount(numbers), 1))
    rows, columns = np.array(sorted(pairs), int).reshape(-1, 2).T
    graph = sparse.coo_array((np.ones(len(rows)), (rows, columns + counts[0])), shape=(sum(counts),) * 2)
    whole = [[lesion.volume_ml for lesion in table] for table in tables]
    seen = [np.multiply(volumes, shares[1:]).tolist() for volumes, shares in zip(whole, covered, strict=True)]
    count, groups = connected_components(graph, directed=False)
    changes = []
    for group in range(count):
        first, second = (tuple((np.flatnonzero(side == group) + 1).tolist()) for side in np.split(groups, counts[:1]))
        volumes, compared = (
            [sum(of[n - 1] for n in ns) for of, ns in zip(each, (first, second), strict=True)] for each in (whole, seen)
        )
        shown = max(covered[side][n] for side, ns in enumerate((first, second)) for n in ns)
        of, way = (tables[0][first[0] - 1], np.eye(4)) if first else (tables[1][second[0] - 1], ways[1])
        x, y, z = (way @ (of.x_mm, of.y_mm, of.z_mm, 1))[:3].tolist()
        changes.append(Change(_kind(first, second, compared, shown), first, second, volumes[0], volumes[1], (x, y, z)))
    return sorted(changes, key=lambda c: (CHANGES.index(c.change), -max(c.baseline_ml, c.followup_ml)))


def write_comparison(
    baseline: tuple[Scan, Scan],
    followup: tuple[Scan, Scan],
    out: str | Path,
    model: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Register two visits, each a scan and its mask, and write `comparison.json` and the page `comparison.html`.

    Args:
        model: `describe_models` of the masks' models; default: as in the records beside the masks.

    Raises:
        ScanError: the scans cannot be registered.
        RunError: see `comparison_files`.
    """
    (scan, mask), (later, later_mask), out = baseline, followup, Path(out)
    files = comparison_files(out, scan, later)
    to_followup, alike = register(scan, later)
    changes = compare_lesions(mask, later_mask, to_followup)
    first, second = _visit(scan, mask, model), _visit(later, later_mask, model)
    content = {
        "baseline": first,
        "followup": second,
        "baseline_to_followup": to_followup.tolist(),
        "correlation": round(alike, 4),
        "warnings": [warning._asdict() for warning in _doubts(scan, later, alike, first["model"], second["model"])],
        "counts": {kind: sum(each.change == kind for each in changes) for kind in CHANGES},
        "lesions": [each._asdict() for each in changes],
    }
    pictured = [each for each in changes if each.change != "stable"][:_PICTURED]
    pictures = _pictures([(scan, mask, np.eye(4)), (later, later_mask, to_followup)], pictured)
    with alone_with(*files), written_together(out, files, *files) as temporary:
        comparison_files(out, scan, later)  # of another process since
        write_page(
            temporary / "comparison.html",
            "comparison.html",
            ["tables.js"],
            title="Two visits",
            content=content,
            changes=changes,
            relative=_RELATIVE,
            least_ml=_LEAST_ML,
            pictured=list(zip(pictured, pictures, strict=True)),
        )
        write_json(temporary / "comparison.json", content)
    return content


def _visit(scan: Scan, mask: Scan, model: Mapping[str, Any] | None) -> dict[str, Any]:
    volume_ml = float((mask.voxels > 0.5).sum() * mask.voxel_mm3 / 1000)
    if model is None and mask.path and (record := record_of(mask.path)):
        model = record["model"]
    made_by = model and {field: model[field] for field in ("name", "sha256")}
    return {"scan": _place(scan), "mask": _place(mask), "model": made_by, "volume_ml": volume_ml}


def comparison_files(out: Path, baseline: Scan, followup: Scan) -> tuple[Path, Path]:
    """The files of a comparison of two scans in a folder.

    Raises:
        RunError: a file of another origin has the name of one of these, or they compare other scans.
    """
    files = out / "comparison.json", out / "comparison.html"
    refuse_other(*files)
    if files[0].is_file():
        compared = read_json(files[0], lambda content: [content[visit]["scan"] for visit in ("baseline", "followup")])
        if compared != [_place(baseline), _place(followup)]:
            raise RunError(
                f"{files[0]} compares {compared[0]} with {compared[1]}. Use another output folder, or delete the file "
                "to replace the comparison."
            )
    return files


def _place(scan: Scan) -> str | None:
    """The absolute path of a scan, if it was read from a file."""
    return str(scan.path.absolute()) if scan.path else None


def _doubts(scan: Scan, later: Scan, alike: float, *models: Mapping[str, Any] | None) -> Iterator[QualityWarning]:
    known = [model for model in models if model]
    if len({model["sha256"] for model in known}) > 1:
        names = " and ".join(f"{model['name']} (SHA-256 {model['sha256'][:8]}…)" for model in known)
        sentence = f"The masks were made with different models: {names}. Segment both scans with one; else lesions may "
        yield QualityWarning("model", f"{sentence}differ because the models do.")
    if np.array_equal(scan.voxels, later.voxels):
        sentence = "Both visits are the same scan, voxel by voxel. Check which files were given."
        yield QualityWarning("same scan", sentence)
        return
    (patient, date), (other, next_date) = (visit_of(each.path) if each.path else ("", "") for each in (scan, later))
    if patient and other and patient != other:
        sentence = "The DICOM headers (PatientID) name different patients for the two scans. Check which were given."
        yield QualityWarning("patient", sentence)
    if next_date and date > next_date:
        sentence = f"The baseline ({date}) is later than the follow-up ({next_date}). Check the order of the visits."
        yield QualityWarning("order", sentence)
    if round(alike, 2) < ONE_PATIENT:  # as told
        sentence = (
            f"The two scans agree poorly: their correlation after registration is {alike:.2f}, and {ONE_PATIENT} or "
            "more is expected. Check that they show the same patient and sequence."
        )
        yield QualityWarning("correlation", sentence)


def _seen_from(
    affine: np.ndarray, labels: np.ndarray, other_affine: np.ndarray, others: np.ndarray, way: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each lesion voxel its number, that of the other visit's nearest voxel (0: none), and whether that exists."""
    where = np.argwhere(labels)
    index = np.linalg.inv(other_affine) @ way @ affine
    there = np.rint(where @ index[:3, :3].T + index[:3, 3]).astype(int)
    inside = ((there >= 0) & (there < others.shape)).all(axis=1)
    found = np.zeros(len(where), int)
    found[inside] = others[tuple(there[inside].T)]
    return labels[tuple(where.T)], found, inside


def _kind(first: tuple[int, ...], second: tuple[int, ...], volumes: Sequence[float], shown: float) -> str:
    if not (first and second):
        return "not covered" if shown < _COVERED else "gone" if first else "new"
    apart = abs(volumes[1] - volumes[0])
    if apart <= max(_RELATIVE * max(volumes), _LEAST_ML) * _ROUNDING:
        return "stable"
    return "enlarging" if volumes[1] > volumes[0] else "shrinking"


def _pictures(visits: Sequence[tuple[Scan, Scan, np.ndarray]], changes: Sequence[Change]) -> list[str]:
    """Both visits around each lesion in the plane of the baseline's slices through its center, as PNGs in data URLs.

    Args:
        visits: each with its mask, and the 4×4 from world coordinates of the baseline to its own.
    """
    scan = visits[0][0]
    turn = nib.orientations.inv_ornt_aff(nib.orientations.io_orientation(scan.affine), scan.voxels.shape)
    right_front = (scan.affine @ turn)[:, :2]
    mm = min(min(each.spacing) for each, _, _ in visits)
    steps = math.ceil(_AROUND_MM / mm)
    away = np.stack(np.meshgrid(*[mm * np.arange(-steps, steps + 1)] * 2))
    plane = np.tensordot(right_front / np.linalg.norm(right_front, axis=0), away, 1)
    return [_picture(visits, plane + np.reshape((*each.place_mm, 1), (4, 1, 1))) for each in changes]


@default_style()
def _picture(visits: Sequence[tuple[Scan, Scan, np.ndarray]], plane: np.ndarray) -> str:
    """The visits at these points of the baseline's world, (4, rows from the bottom, columns)."""
    figure = canvas(4.4, 2.2)
    for panel, (scan, mask, way) in enumerate(visits):
        low, high = grey_window(scan.voxels)
        grey = _sampled(scan, way, plane, order=1, beyond=low)
        lesion = _sampled(mask, way, plane, order=0, beyond=0.0)
        axes = figure.add_axes((panel / 2, 0, 0.49, 1))
        axes.imshow(grey, cmap="gray", origin="lower", vmin=low, vmax=high)
        if lesion.max() > 0.5:
            axes.contour(lesion > 0.5, [0.5], colors=_COLOUR, linewidths=0.9)
        axes.set_axis_off()
    return picture_url(png_of(figure))


def _sampled(scan: Scan, way: np.ndarray, plane: np.ndarray, order: int, beyond: float) -> np.ndarray:
    index = np.tensordot(np.linalg.inv(scan.affine) @ way, plane, 1)[:3]
    return ndimage.map_coordinates(
        scan.voxels, index, np.float32, order=order, mode="grid-constant", cval=beyond, prefilter=False
    )
