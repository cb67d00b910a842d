"""The individual lesions of a mask: position, size, and the network's probability."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from planar3d.files import write_csv
from planar3d.scans.labels import Targets
from planar3d.scans.volume import Scan, on_grid_of


class Lesion(NamedTuple):
    """One lesion of a mask."""

    lesion: int  # number; 1 is the largest
    volume_ml: float  # number of voxels times voxel volume
    voxels: int  # number of voxels
    x_mm: float  # centroid in world coordinates, to the right
    y_mm: float  # centroid, to anterior
    z_mm: float  # centroid, to superior
    # Extent along right-left, anterior-posterior and superior-inferior, including the voxels' own size.
    extent_mm: tuple[float, float, float]
    mean_probability: float | None  # over its voxels, in [0, 1]; None without probabilities
    region: str | None = None  # see `name_regions`; None if not requested
    region_sure: bool | None = None  # whether it is certain; None if the region is unknown


def lesion_table(mask: Scan, probabilities: Scan | None = None) -> list[Lesion]:
    """List the lesions of a mask, the largest first.

    A lesion is a connected component over faces, as in the challenge's tool and in `lesion_scores`: with thick slices,
    voxels that share only an edge or a corner are millimetres apart. Lesions of every size are listed, so the volumes
    add up to the mask's. The list does not depend on how the mask is stored.

    Args:
        mask: above 0.5 is lesion; in any orientation, including oblique.
        probabilities: of lesion, in [0, 1], on the grid of the mask.
    """
    if probabilities is not None:
        probabilities = on_grid_of(mask, probabilities)
    indices, of, centroids = _numbered(mask)
    sizes = np.bincount(of)
    order, firsts = np.argsort(of, kind="stable"), np.cumsum(sizes) - sizes
    extents = np.empty((3, len(sizes)))
    for axis, row in enumerate(mask.affine[:3, :3]):
        grouped = (indices @ row)[order]
        between_centres = np.maximum.reduceat(grouped, firsts) - np.minimum.reduceat(grouped, firsts)
        extents[axis] = between_centres + np.abs(row).sum()
    means: list[Any] = [None] * len(sizes)
    if probabilities is not None:
        means = (np.bincount(of, probabilities.voxels[tuple(indices.T)]) / sizes).tolist()
    volumes = (sizes * (mask.voxel_mm3 / 1000)).tolist()
    columns = (volumes, sizes.tolist(), *centroids.tolist(), map(tuple, extents.T.tolist()), means)
    return [Lesion(number, *values) for number, values in enumerate(zip(*columns, strict=True), start=1)]


def lesion_labels(mask: Scan) -> np.ndarray:
    """The lesion number of each voxel, as in `lesion_table`, (i, j, k); 0 is background.

    The type is uint16, or int32 above 65,535 lesions.
    """
    indices, of, centroids = _numbered(mask)
    labels = np.zeros(mask.voxels.shape, np.uint16 if centroids.shape[1] < 2**16 else np.int32)
    labels[tuple(indices.T)] = of + 1
    return labels


def lesion_places(mask: Scan) -> np.ndarray:
    """The voxel of each lesion that is nearest to its centroid, in mm, (lesion, 3), in the order of `lesion_table`.

    The centroid of a curved lesion can lie outside it.
    """
    indices, of, centroids = _numbered(mask)
    places = indices @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    apart = np.linalg.norm(places - centroids.T[of], axis=1)
    nearest = np.lexsort(np.round([*places.T, apart, of], 3))  # rounded as in `_numbered`
    return places[nearest[np.searchsorted(of[nearest], np.arange(centroids.shape[1]))]]


def lesions_by_target(labels: Scan, targets: Targets, probabilities: Scan | None = None) -> dict[str, list[Lesion]]:
    """List the lesions of each target by its name, see `lesion_table`; nested regions have separate lists.

    Args:
        labels: a label map, or a mask.
        probabilities: of any target, on the same grid. They give the mean probability of the union of all labels, not
            of its parts.
    """
    known = set().union(*targets.scored.values())
    of = {name: probabilities if known.issubset(values) else None for name, values in targets.scored.items()}
    masks = targets.masks(labels.voxels)
    return {name: lesion_table(Scan(mask, labels.header), of[name]) for name, mask in masks.items()}


def _numbered(mask: Scan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lesion voxels, (voxel, axis), the lesion of each, numbered from 0 by rank, and their centroids in mm."""
    indices, of = _components(mask.voxels > 0.5)
    sizes = np.bincount(of)
    centroids = np.array([np.bincount(of, indices @ row + origin) / sizes for *row, origin in mask.affine[:3]])
    # Of equal sizes, the higher one is first; rounded, since storage orders differ in the last digits of a centroid.
    x, y, z = np.round(centroids, 3)
    ranks = np.lexsort((x, y, -z, -sizes))
    return indices, np.argsort(ranks)[of], centroids[:, ranks]


def _components(lesion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the lesion voxels, (voxel, axis), and the component of each, numbered from 0.

    Lesions have few of a scan's voxels, so joining neighbours pair by pair takes a tenth of the time of labelling
    the whole volume.
    """
    stored = lesion.T if lesion.flags.f_contiguous else lesion  # in memory order
    flat = np.flatnonzero(stored)
    indices = np.stack(np.unravel_index(flat, stored.shape), axis=1)
    pairs = []
    for axis, length in enumerate(stored.shape):
        next_one = flat + math.prod(stored.shape[axis + 1 :])
        place = np.minimum(np.searchsorted(flat, next_one), len(flat) - 1)
        joined = np.flatnonzero((indices[:, axis] < length - 1) & (flat[place] == next_one))
        pairs.append(np.stack([joined, place[joined]]))
    first, second = np.concatenate(pairs, axis=1)
    graph = sparse.coo_array((np.ones(len(first), bool), (first, second)), shape=(len(flat),) * 2)
    _, component = connected_components(graph, directed=False)
    return indices[:, ::-1] if lesion.flags.f_contiguous else indices, component


# Columns of the file, and their decimals: thousandths of a microlitre, hundredths of a millimetre.
_COLUMNS = {
    "lesion": None,
    "volume_ml": 6,
    "voxels": None,
    **dict.fromkeys(("x_mm", "y_mm", "z_mm", "right_left_mm", "anterior_posterior_mm", "superior_inferior_mm"), 2),
    "mean_probability": 4,
    "region": None,
    "region_sure": None,
}


def write_lesions(path: str | Path, lesions: Mapping[str, Sequence[Lesion]]) -> None:
    """Write the lesions of a mask by target; for several targets, the first column is the target's name."""
    target = ["target"] if len(lesions) > 1 else []
    each = ((dict.fromkeys(target, name), lesion) for name, its in lesions.items() for lesion in its)
    write_lesion_lines(path, target, each)


def write_lesion_lines(
    path: str | Path, before: Sequence[str], lines: Iterable[tuple[Mapping[str, str], Lesion]]
) -> None:
    """Write lesions with a header line, atomically; without lesions only the header.

    As CSV, or tab-separated if the name ends in .tsv, where unknown values are n/a, as in BIDS. Each lesion comes with
    the values of the columns `before` its own.
    """
    unknown = "n/a" if Path(path).suffix == ".tsv" else None

    def row(lesion: Lesion) -> dict[str, Any]:
        values = zip(_COLUMNS.items(), (*lesion[:6], *lesion.extent_mm, *lesion[7:]), strict=True)
        return {
            column: unknown if value is None else value if digits is None else round(float(value), digits)
            for (column, digits), value in values
        }

    write_csv(path, [*before, *_COLUMNS], ({**about, **row(lesion)} for about, lesion in lines))
