"""Lesion-wise scores of the challenge (Commowick et al. 2018; its tool is Anima's segPerfAnalyzer)."""

import numpy as np
from scipy import ndimage, sparse

from planar3d.errors import ScanError
from planar3d.scans.checks import are_labels
from planar3d.scans.geometry import Grid, voxel_mm3
from planar3d.scans.head import box_of

# The challenge's settings.
ALPHA = 0.1  # the fraction of a lesion above which it is covered
BETA = 0.7  # the largest fraction of an overlapping lesion outside all lesions of the other mask
GAMMA = 0.65  # the fraction of the overlap after which further overlapping lesions are not checked
MINIMUM_MM3 = 3.0  # components up to this volume are dropped


def lesion_scores(reference: np.ndarray, prediction: np.ndarray, spacing: Grid) -> dict[str, float]:
    """Count the reference lesions that are detected, and score them and the predicted lesions that are confirmed.

    Lesions are connected over faces, as in the tool's code, and strictly larger than `MINIMUM_MM3`; smaller components
    count as background in both masks. A reference lesion is detected if

    1. more than `ALPHA` of its voxels are predicted, and
    2. of the predicted lesions that overlap it, taken by decreasing overlap until their total is at least `GAMMA` of
       the overlapped part, none has more than `BETA` of its own volume on reference background.

    A predicted lesion is confirmed by the same rule with the two masks exchanged. Of equal overlaps the larger lesion
    is first, as in the tool, which sorts labels by size. The tool also stops after as many predicted lesions as the
    reference has labels; the published definition and this function have no such limit.

    Sensitivity without reference lesions and precision without predicted lesions are nan. F1 is 0 if the masks have
    lesions and none matches, so that missed scans count in a mean; it is nan only if neither mask has any.

    Arguments and errors are those of `score_scan`; the scores have their names in `MEASURES`, besides
    `confirmed_lesions`.
    """
    reference, prediction = binary_pair(reference, prediction)
    box = box_of(reference | prediction)
    # Headers have float32 edges: rounding must not let a component of exactly the minimum pass.
    minimum_voxels = MINIMUM_MM3 / voxel_mm3(spacing) * (1 + 1e-6)
    reference_labels, reference_sizes = _lesions(reference[box], minimum_voxels)
    prediction_labels, prediction_sizes = _lesions(prediction[box], minimum_voxels)
    shape = (len(reference_sizes), len(prediction_sizes))
    # The common voxels of each pair: equal pairs are summed; lesion 1 is row or column 0.
    common = (reference_labels > 0) & (prediction_labels > 0)
    pairs = reference_labels[common] - 1, prediction_labels[common] - 1
    overlaps = sparse.csr_matrix((np.ones(len(pairs[0]), int), pairs), shape=shape)
    detected = _count_detected(overlaps, reference_sizes, prediction_sizes)
    confirmed = _count_detected(overlaps.T.tocsr(), prediction_sizes, reference_sizes)
    sensitivity, precision = ratio(detected, shape[0]), ratio(confirmed, shape[1])
    f1 = 2 * sensitivity * precision / (sensitivity + precision) if detected else ratio(0, sum(shape))
    return {
        "lesion_sensitivity": sensitivity,
        "lesion_precision": precision,
        "lesion_f1": f1,
        "reference_lesions": shape[0],
        "detected_lesions": detected,
        "prediction_lesions": shape[1],
        "confirmed_lesions": confirmed,
    }


def binary_pair(reference: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two masks as boolean volumes; an error if they cannot be compared."""
    for which, mask in (("reference", reference), ("prediction", prediction)):
        if not np.ndim(mask):
            raise ScanError(f"The {which} must be an array (i, j, k), as a scan's voxels; got {type(mask).__name__}.")
    reference, prediction = np.asarray(reference), np.asarray(prediction)
    if reference.ndim != 3 or reference.shape != prediction.shape or not reference.size:
        advice = "Give each as (i, j, k): mask[..., 0] of a network's output, image[None] of an image."
        if reference.ndim == prediction.ndim == 3:
            advice = "Resample the prediction to the reference's grid first."
        raise ScanError(
            f"The reference has shape {reference.shape} and the prediction {prediction.shape}; two volumes on one grid "
            f"are needed. {advice}"
        )
    return _binary("reference", reference), _binary("prediction", prediction)


def _binary(which: str, mask: np.ndarray) -> np.ndarray:
    if mask.dtype == bool:
        return mask
    if mask.dtype.kind in "iuf":
        labels = np.rint(mask) if mask.dtype.kind == "f" else mask  # NumPy rounds 8-bit numbers slowly, as float16
        if are_labels(mask, labels, 1):
            return labels > 0
        found = f"values from {mask.min():g} to {mask.max():g}"
    else:
        found = f"the type {mask.dtype}"
    raise ScanError(
        f"The {which} has {found}; a mask of {{0, 1}} is needed. Binarize it first, e.g. mask > 0.5, or select one "
        "label, mask == 1."
    )


def ratio(part: float, whole: float) -> float:
    """Divide, with nan for 0/0."""
    return part / whole if whole else float("nan")


def _lesions(mask: np.ndarray, minimum_voxels: float) -> tuple[np.ndarray, np.ndarray]:
    """Label components larger than the minimum as 1, 2, …, others as 0; return labels and sizes in voxels."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=1)
    kept = sizes > minimum_voxels
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(labels.dtype)[labels], sizes[kept]


def _count_detected(overlaps: sparse.csr_matrix, sizes: np.ndarray, other_sizes: np.ndarray) -> int:
    """Count the lesions of the rows, of `sizes` voxels, detected by the other mask's lesions in the columns."""
    outside = (other_sizes - np.asarray(overlaps.sum(axis=0)).ravel()) / other_sizes
    detected = 0
    for row, size in enumerate(sizes):
        span = slice(overlaps.indptr[row], overlaps.indptr[row + 1])
        others, overlap = overlaps.indices[span], overlaps.data[span]
        covered = int(overlap.sum())
        if covered / size <= ALPHA:
            continue
        order = np.lexsort((-outside[others], -other_sizes[others], -overlap))
        # Voxel counts are summed and divided once, so that 13 of 20 is exactly 0.65.
        overlapping = others[order][: 1 + np.searchsorted(np.cumsum(overlap[order]) / covered, GAMMA)]
        detected += not np.any(outside[overlapping] > BETA)
    return detected
