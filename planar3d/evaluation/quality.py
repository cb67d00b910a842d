"""Quality checks: what a user should know before trusting a scan's mask."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from planar3d.evaluation.scan_checks import OF_SCANS, Check, CheckedScan
from planar3d.scans.head import on_coarse_grid
from planar3d.scans.labels import Targets
from planar3d.scans.targets import Binary
from planar3d.scans.volume import Scan
from planar3d.wording import rounded

_SHARE_AT_BORDER = 0.1
_NECK = 170.0  # mm below the top of the head; the brain ends above in 19 of 20 heads of SynthSeg's label maps
_BEYOND = 1.15  # times the spacing that a model was evaluated on, above which a scan counts as different


class QualityWarning(NamedTuple):
    """A check that fired, and its sentence: the finding, and what it means for the mask."""

    check: str
    sentence: str


def check_quality(
    scan: Scan,
    mask: Scan,
    whole_head: bool | None = None,
    targets: Targets = Binary(),  # noqa: B008 - frozen
    image: str = "flair",
    measured: Mapping[str, Any] | None = None,
) -> list[QualityWarning]:
    """List reasons not to trust the mask of a scan; empty if there are none.

    The checks use voxels about 2.5 mm apart. They distinguish CT and T2-, PD- and T1-weighted scans, with or without
    contrast agent, from FLAIR, but not other inversion recovery sequences.

    Args:
        mask: the predicted mask or label map on the grid of the scan; above 0.5 is lesion, or another target.
        whole_head: True for a model of whole heads, False for one of extracted brains, None if it takes both.
        targets: the targets of the mask, with their plausible size.
        image: the expected contrast of the scan; only flair can be checked.
        measured: the model card's evaluation: `spacing_mm`, the smallest and largest slice spacing; `extracted`, a
            list of True, False or both; `false_alarms_ml`, the median volume marked in scans without targets.
    """
    checked = CheckedScan(scan, mask, whole_head, targets, image, measured or {})
    checks = _CHECKS if targets.in_head else {name: _CHECKS[name] for name in _OF_ANYTHING}
    return [QualityWarning(name, sentence) for name, check in checks.items() for sentence in check(checked)]


def _empty_result(checked: CheckedScan) -> Iterator[str]:
    if not checked.lesion_voxels:
        yield f"No {checked.targets.noun} was found. Look at the scan: it may be unsuitable for the model."


def _large_result(checked: CheckedScan) -> Iterator[str]:
    noun, share, head_ml = checked.targets.noun, checked.targets.plausible_share, checked.head.volume_ml
    if checked.lesion_ml > share * head_ml:
        yield (
            f"The {noun}s take up {checked.lesion_ml:.0f} ml of a head of {head_ml:.0f} ml, more than {share:.0%}, "
            "which is rarely correct. Check the mask on the scan."
        )


def _few(checked: CheckedScan) -> Iterator[str]:
    false_ml = checked.measured.get("false_alarms_ml", 0.0)
    if 0 < checked.lesion_ml <= false_ml:
        yield (
            f"The {checked.targets.noun}s take up {rounded(checked.lesion_ml, 2)} ml in total, and the model marks "
            f"about {rounded(false_ml, 2)} ml in scans that have none, so all of them may be false alarms. Check each "
            "one; a higher least_mean in the recipe drops those of low probability."
        )


def _unmeasured(checked: CheckedScan) -> Iterator[str]:
    slices = max(checked.scan.spacing)
    least, most = checked.measured.get("spacing_mm", (slices, slices))
    extracted = checked.head.is_extracted
    if not least / _BEYOND <= slices <= most * _BEYOND:
        yield (
            f"The slices are {slices:.1f} mm apart, but the model was evaluated on scans with {least:.1f} to "
            f"{most:.1f} mm; its accuracy here is unknown."
        )
    elif extracted is not None and extracted not in checked.measured.get("extracted", (extracted,)):
        shown = "only the brain" if extracted else "a whole head"
        yield f"The scan shows {shown}, but the model was not evaluated on such scans; its accuracy here is unknown."


def _border(checked: CheckedScan) -> Iterator[str]:
    within = int(np.count_nonzero(checked.lesion[1:-1, 1:-1, 1:-1]))
    share = 1 - within / checked.lesion_voxels if checked.lesion_voxels else 0
    if share > _SHARE_AT_BORDER:
        yield (
            f"{share:.0%} of the {checked.targets.noun} voxels are in the outermost slices of the field of view, where "
            "there is little context to judge them; check them."
        )


def _neck(checked: CheckedScan) -> Iterator[str]:
    below = checked.head.below_vertex + checked.head.missing()["superior"]
    _, places = on_coarse_grid(checked.lesion, checked.scan, checked.head)
    if low_ml := np.count_nonzero(below[places[:, 2]] > _NECK) * checked.mask.voxel_mm3 / 1000:
        yield (
            f"{rounded(low_ml, 2)} ml of the {checked.targets.noun}s lie more than {_NECK:.0f} mm below the top of the "
            "head, where the neck is. Unless they are in the brain, remove them from the mask and from the total."
        )


_CHECKS: dict[str, Check] = {
    "empty result": _empty_result,
    "large result": _large_result,
    "few lesions": _few,
    "not measured": _unmeasured,
    "lesions at the border": _border,
    "lesions in the neck": _neck,
    **OF_SCANS,
}
# The others are for heads, and for lesions in them.
_OF_ANYTHING = ("empty result", "spacing", "sform and qform", "sheared voxels")
