"""The demonstration runs the whole method on the phantom."""

import csv

from msseg import TINY

from planar3d.recipes import DEMO
from planar3d.study.reproduce import demonstrate


def test_the_demonstration_goes_from_phantom_to_report(tmp_path):
    recipe = DEMO.with_settings(list(TINY))
    done = demonstrate(tmp_path / "demo", recipe, only="1", notify=lambda text: None, reduction=8)
    assert len(done.run.cases) == 15 and len(done.run.folds) == 5
    with (done.run.fold(1) / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["group"] for row in rows} == {"01", "07", "08"}
    page = done.report.read_text(encoding="utf-8")
    assert "phantom" in page and "nothing about patients" in page
    assert (tmp_path / "demo-phantom/complete").is_file()
