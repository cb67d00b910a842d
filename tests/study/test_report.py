import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from planar3d.errors import Planar3DError, RunError
from planar3d.study import report
from planar3d.study.report import write_report


@pytest.fixture
def small_run(make_run, one_box):
    """Two folds of two scans each, because every picture takes a moment."""
    return lambda **changes: make_run(**{"groups": ("01", "07"), "count": 2, **changes})


@pytest.fixture(scope="module")
def whole(write_run, tmp_path_factory):
    """The report of a whole run, which no test changes."""
    return write_report(write_run(tmp_path_factory.mktemp("whole"), groups=("01", "07"), count=2)).page


def page_of(run):
    return write_report(run).page.read_text(encoding="utf-8")


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page))


def test_tables_figures_and_page_are_written(whole):
    assert whole.parts[-3:] == ("run", "report", "report.html")
    names = {path.name for path in whole.parent.iterdir()}
    assert {"table2.csv", "table2.md", "table3.csv", "table3.md", "report.html", "figures"} <= names
    figures = {path.name for path in (whole.parent / "figures").iterdir()}
    assert {"boxes_prepared.png", "boxes_native.png", "learning_curves.png"} <= figures
    assert len([name for name in figures if name.startswith("overlay_")]) == 4


def test_the_page_needs_no_other_file_and_no_network(whole):
    page = whole.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert len([s for s in sources if s.startswith("data:image/png;base64,")]) == 4 + 3
    assert all(s.startswith(("data:image/png;base64,", "#")) for s in sources)
    assert "http://" not in page and "https://" not in page and "<script" not in page and "url(" not in page


def test_a_page_of_many_scans_links_to_the_pictures_that_would_make_it_too_large(small_run, monkeypatch):
    monkeypatch.setattr(report, "_EMBEDDED", 2)
    path = write_report(small_run(groups=("01",), count=3, prefix="scan #")).page
    page = path.read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2 + 3
    (link,) = re.findall(r'<a href="(figures/[^"]*)">scan #02, fold 3: Dice', page)
    assert (path.parent / unquote(link)).is_file()


def test_every_scan_stands_in_the_table_and_above_its_overlay(whole):
    page = whole.read_text(encoding="utf-8")
    for name in (f"scan{place}{number}" for place in range(2) for number in range(2)):
        assert page.count(f'<th scope="row">{name}</th>') == 2
        assert re.search(rf"<figcaption>{name}, fold \d: Dice \d\.\d{{3}} \(native grid\)</figcaption>", page)


def test_published_means_stand_beside_scores_of_the_challenge_s_scans_only(whole, small_run):
    def marked(report):
        picture = imread(report.parent / "figures/boxes_native.png")[..., :3] * 255
        return (np.abs(picture - (0x00, 0x9E, 0x73)).max(axis=-1) < 12).any()  # the mark's green

    assert marked(whole) and not marked(write_report(small_run(groups=("01", "Lyon"))).page)


@pytest.fixture(scope="module")
def told(write_run, change_json, whole, module_one_box, tmp_path_factory):
    """The page of a run on the phantom whose names and conditions are not as they mostly are."""
    run = write_run(tmp_path_factory.mktemp("told"), groups=("<b>x</b>", "y"), count=1, phantom=True, size=64)
    odd = {"machine": "x86_64, 2 cores", "digests": {"vgg16": "ab12"}, "by": "<script>alert(1)</script>"}
    change_json(run / "environment.json", lambda environment: environment.update(odd))
    return page_of(run)


def test_conditions_are_printed_whatever_they_are(told):
    text = text_of(told)
    for words in (
        "preparationsagittal-cube",
        "threshold16.0",
        "frozenencoder",
        "machinex86_64, 2 cores",
        '{"vgg16": "ab12"}',
        "layouttable",
    ):
        assert words in text.replace("&#34;", '"')


def test_names_and_conditions_are_escaped(told):
    assert "<script" not in told and "<b>" not in told
    assert "&lt;script&gt;" in told and "&lt;b&gt;x&lt;/b&gt;" in told


def test_the_phantom_is_warned_of_above_all_scores(told):
    assert 0 < told.index("nothing about patients") < told.index("Table 2")
    assert "64³ grid" in told and "256³ grid" not in told


def test_a_part_of_a_run_is_reported_and_the_rest_named(small_run):
    run = small_run()
    shutil.rmtree(run / "fold-2")
    (run / "fold-1" / "history.csv").unlink()
    page = page_of(run)
    assert "Missing: fold 2 of 2" in page
    assert "No fold has a history.csv" in page
    assert page.count("<figcaption>scan") == 2


def test_scans_that_cannot_be_pictured_are_named_and_the_others_are(small_run):
    run = small_run()
    removed, truncated, elsewhere = "scan00", "scan01", "scan10"
    (run.parent / f"data/{removed}.nii.gz").unlink()
    scan = run.parent / f"data/{truncated}.nii.gz"
    scan.write_bytes(scan.read_bytes()[:2000])
    (mask,) = run.glob(f"fold-*/predictions/{elsewhere}_mask.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), mask)
    page = page_of(run)
    for name in (removed, truncated, elsewhere):
        assert f"{name} has no picture: " in page
    assert page.count("<figcaption>scan") == 1


def test_each_scan_has_its_own_picture_whatever_its_letters(small_run):
    run, names = small_run(count=1), {"scan00": "Müller", "scan10": "Möller"}
    for path in (run / "folds.json", run / "fold-1/scores.csv"):
        text = path.read_text(encoding="utf-8")
        for before, name in names.items():
            text = text.replace(f'"{before}"', f'"{name}"').replace(f"\n{before},", f"\n{name},")
        path.write_text(text, encoding="utf-8")
    for before, name in names.items():
        (run / f"fold-1/predictions/{before}_mask.nii.gz").rename(run / f"fold-1/predictions/{name}_mask.nii.gz")
    figures = write_report(run).page.parent / "figures"
    assert sorted(path.name for path in figures.glob("overlay_*")) == [
        f"overlay_{name}_fold-1.png" for name in sorted(names.values())
    ]


def test_the_same_run_gives_the_same_page(small_run):
    run = small_run()
    assert page_of(run) == page_of(run)


def test_a_run_without_scores_is_refused(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        write_report(tmp_path)


def test_without_the_extra_it_is_named(small_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(Planar3DError, match=r"pip install 'planar3d\[study\]'"):
        write_report(small_run())


def test_tables_need_no_heavy_library():
    program = (
        "import sys, planar3d.study.report, planar3d.study.tables\n"
        "print([m for m in ('tensorflow', 'keras', 'matplotlib', 'pandas', 'nilearn', 'jinja2') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.strip() == "[]"


def test_the_command_loads_neither_keras_nor_tensorflow(small_run):
    program = (
        "import sys; from planar3d import cli\n"
        "try: cli.main()\n"
        "except SystemExit as ended: assert not ended.code\n"
        "print('loaded:', sorted({'keras', 'tensorflow'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", program, "report", str(small_run(groups=("01",), count=1))]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.splitlines()[-1:] == ["loaded: []"], done.stdout + done.stderr
