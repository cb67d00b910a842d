"""Agreement of volumes and ejection fractions between a run on CAMUS and the reference."""

from collections import defaultdict

import numpy as np

from planar3d.errors import RunError, ScanError
from planar3d.evaluation.ejection import Ventricle, agreement, biplane_volume, ejection_fraction, left_ventricle
from planar3d.evaluation.scores import Summary
from planar3d.scans.case import Case
from planar3d.scans.layouts.camus import INSTANTS, VIEWS
from planar3d.scans.volume import read_scan
from planar3d.study.results import Results
from planar3d.study.sources import require_unchanged
from planar3d.study.table_format import Row, Table
from planar3d.wording import counted

_KINDS = [f"{view}_{instant}" for instant in INSTANTS for view in VIEWS]


def ejection_table(results: Results) -> Table:
    """Build a table of correlation, bias, its standard deviation and mean absolute difference, over test patients."""
    ventricles: dict[str, dict[str, tuple[Ventricle, Ventricle]]] = defaultdict(dict)
    unread = []
    for scan in {scan.scan: scan for scan in results.on("native")}.values():
        case = results.run.cases[scan.scan]
        try:
            ventricles[case.patient][scan.scan[-len(_KINDS[0]) :]] = _both(results, case, scan.fold)
        except (RunError, ScanError) as error:
            unread.append(f"{scan.scan} is excluded: {error}")
    whole = [views for views in ventricles.values() if views.keys() >= set(_KINDS)]
    measured = np.array([[_measured(views, which) for views in whole] for which in (0, 1)]).reshape(2, -1, 3)
    rows = [
        Row(name, {column: Summary(value) for column, value in agreement(reference, found).items()}, grid="native")
        for name, reference, found in zip(("EF [%]", "EDV [ml]", "ESV [ml]"), *np.moveaxis(measured, 2, 1), strict=True)
    ]
    notes = [
        f"Of {counted(whole, 'patient')} with both views at both instants; all volumes by Simpson’s biplane rule from "
        "the label maps.",
        *unread,
    ]
    return Table("ejection", "Ejection fraction and volumes", tuple(rows[0].cells), rows, notes)


def _both(results: Results, case: Case, number: int) -> tuple[Ventricle, Ventricle]:
    """The ventricle of an image, from the expert and from the run."""
    require_unchanged(results.run, case.id)
    scan = read_scan(next(iter(case.images.values())), assume_affine=True, flat=True)
    predicted = results.run.predicted(case.id, number)
    maps = [results.run.recipe.targets.read(path, scan, assume_affine=True) for path in (case.label_map, predicted)]
    reference, found = (left_ventricle(labels.voxels, labels.spacing) for labels in maps)
    return reference, found


def _measured(views: dict[str, tuple[Ventricle, Ventricle]], which: int) -> tuple[float, float, float]:
    """EF, EDV and ESV of a patient, of the reference (0) or the run (1)."""
    two_ed, four_ed, two_es, four_es = (views[kind][which] for kind in _KINDS)
    diastole, systole = biplane_volume(two_ed, four_ed), biplane_volume(two_es, four_es)
    return ejection_fraction(diastole, systole), diastole, systole
