"""The figures printed in Kolarik et al. 2020, for comparison with a run."""

import math
import re

from planar3d.evaluation.scores import Summary

CITATION = "Kolarik et al. 2020, Planar 3D Transfer Learning for End to End Unimodal MRI Unbalanced Data Segmentation"
RELEASE = "the README of the authors' released weights (fold 1 of 5)"

# The challenge's center codes: the first two digits of a scan's name in the first distribution.
CENTERS = ("01", "07", "08")
ALL = "all scans"


def center_of(group: str) -> str:
    """Return the center's code of a group of scans ("01", or "Center_01" as on the Shanoir portal), else the group."""
    found = re.fullmatch(r"(?:center[_ ]?)?(\d\d)", group, flags=re.IGNORECASE)
    return found[1] if found and found[1] in CENTERS else group


def _printed(mean: float, sd: float = math.nan, digits: int = 2) -> Summary:
    return Summary(mean, sd, digits=digits)


def _by_center(*figures: Summary) -> dict[str, Summary]:
    return dict(zip((*CENTERS, ALL), figures, strict=True))


# Table 2 of the paper, five-fold cross-validation. It prints Dice for all scans as 0.61 ± 0.05; the third digit is
# from table 3 and the text.
TABLE_2 = {
    "dice": _by_center(_printed(0.69, 0.11), _printed(0.50, 0.11), _printed(0.64, 0.09), _printed(0.611, 0.052, 3)),
    "sensitivity": _by_center(_printed(0.61, 0.14), _printed(0.45, 0.13), _printed(0.72, 0.16), _printed(0.60, 0.10)),
}

# Fold 1 with the released weights: one scan of each center, the last in alphabetical order. The figures printed for
# all three are not their means (0.660 and 0.633): the released code scores all slices of the three together.
FOLD_1_SCANS = ("01042GULE", "07043SEME", "08037ROGU")
FOLD_1 = {
    "dice": _by_center(*(_printed(mean, digits=4) for mean in (0.6313, 0.6770, 0.6705, 0.6582))),
    "sensitivity": _by_center(*(_printed(mean, digits=4) for mean in (0.4655, 0.6048, 0.8287, 0.6242))),
}

RAW = "raw scan, end to end"
_EXTRACTED = "brain extracted, not end to end"
_EXPERT = "human expert"
REPRODUCED = "Kolarik et al. 2020"

# Table 3 of the paper: by system, its kind (the table's sections and column "End-to-end"), Dice and sensitivity. Knight
# and Khademi, Mahbod et al. and McKinley et al. are entries of the challenge of 2016.
TABLE_3 = {
    "Knight and Khademi 2016": (RAW, _printed(0.512, 0.014, 3), _printed(0.45, 0.05)),
    REPRODUCED: (RAW, _printed(0.611, 0.052, 3), _printed(0.60, 0.10)),
    "Mahbod et al. 2016": (_EXTRACTED, _printed(0.448, 0.064, 3), _printed(0.53, 0.03)),
    "McKinley et al. 2016": (_EXTRACTED, _printed(0.598, 0.059, 3), _printed(0.65, 0.03)),
    "Least precise expert": (_EXPERT, _printed(0.670, 0.008, 3), _printed(0.72, 0.06)),
    "Average expert": (_EXPERT, _printed(0.705, 0.027, 3), _printed(0.77, 0.02)),
}


def implied_spreads(measure: str) -> tuple[float, float]:
    """Return the standard deviations over scans and over means of folds implied by the figures of the centers.

    Over scans: the mean variance within centers plus the variance between their means. Over folds: one scan of each
    center per fold, assumed independent. For Dice they are about 0.13 and 0.06, so the ± 0.052 printed for all scans
    can only be over folds.
    """
    centers = [TABLE_2[measure][center] for center in CENTERS]
    middle = sum(center.mean for center in centers) / len(centers)
    within = sum(center.sd**2 for center in centers) / len(centers)
    between = sum((center.mean - middle) ** 2 for center in centers) / len(centers)
    return math.sqrt(within + between), math.sqrt(within / len(centers))
