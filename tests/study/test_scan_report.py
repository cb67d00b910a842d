import base64
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scan_pages import pictures_of, record_of, segmented, text_of

from planar3d import study
from planar3d.errors import Planar3DError, ScanError
from planar3d.scans.volume import Scan
from planar3d.study.scan_report import write_scan_report

EVIL = "</script><script>alert(1)</script><b>"


@pytest.fixture
def page(tmp_path):
    """Write the report of a small scan, its record changed at will, and return the page."""

    def write(axes="RAS", probability=None, **changes):
        scan, mask = segmented(axes)
        path = tmp_path / "report.html"
        assert write_scan_report(record_of(mask) | changes, scan, mask, path, probability) == path
        return path.read_text(encoding="utf-8")

    return write


def test_headline_warnings_and_conditions_are_read(page):
    text = text_of(page())
    for words in ("sub-01_FLAIR", "lesions 2", "total volume 0.27 ml", "largest lesion 0.27 ml", "model ms-flair"):
        assert words in text
    for words in ("Slices lie far apart.", "sha256 30de1", "licence CC BY 4.0", "threshold 32.0", "keras 3.15.1"):
        assert words in text
    for words in (
        "shared on OpenVINO, bf16",
        "sub-01_FLAIR_mask.nii.gz",
        "SHA-256 of the mask 3a5c",
        "not a medical device",
    ):
        assert words in text


def test_warnings_stand_above_the_viewer(page):
    content = page()
    assert 0 < content.index("Slices lie far apart.") < content.index('id="viewer"')


def test_the_page_needs_no_other_file_and_no_network(page):
    content = page()
    assert not re.findall(r"\b(?:src|href|action|data)=|url\(|@import|\bfetch\(|XMLHttpRequest|https?://", content)


def test_nothing_that_scrolls_on_a_screen_is_cut_off_on_paper():
    screen, printed = Path(study.__file__).with_name("page.css").read_text(encoding="utf-8").split("@media print")
    scrolling = re.findall(r"(\.\w+) { [^}]*overflow(?:-x)?: auto", screen)
    shown = re.search(r"([^{};]*) { overflow: visible; }", printed).group(1)
    assert scrolling and set(scrolling) <= set(re.findall(r"\.\w+", shown))


def test_the_policy_allows_the_pages_own_script_and_style_alone(page):
    content = page()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', content).group(1)
    allowed = dict(part.strip().split(" ", 1) for part in policy.replace("&#39;", "'").split(";"))
    assert allowed["default-src"] == "'none'"
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed[directive] == f"'sha256-{digest}'"


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "PIR"])
def test_mask_and_lesions_are_where_they_are_however_the_scan_is_stored(page, axes):
    pictures = pictures_of(page(axes))
    mask = pictures["volumes"]["mask"]
    assert mask.sum() == 5 * 5 * 3 + 1
    large, small = pictures["lesions"]
    assert np.argwhere(mask).mean(axis=0) == pytest.approx(np.average([large, small], axis=0, weights=[75, 1]))
    assert mask[tuple(large)] == mask[tuple(small)] == 1
    assert large[0] > small[0]  # farther to the right


def test_a_line_of_a_bent_lesion_leads_into_it_and_of_a_target_into_its_part(tmp_path):
    scan, mask = segmented()
    mask.voxels[27:30, 25:28] = 0  # a ring
    report = write_scan_report(record_of(mask), scan, mask, tmp_path / "ring.html")
    pictures = pictures_of(report.read_text(encoding="utf-8"))
    assert all(pictures["volumes"]["mask"][tuple(place)] for place in pictures["lesions"])
    parts = {"whole": mask.voxels > 0, "core": np.zeros_like(mask.voxels, bool)}
    parts["core"][14, 18, 6] = True
    report = write_scan_report(record_of(mask) | {"lesions": []}, scan, mask, tmp_path / "parts.html", targets=parts)
    places = pictures_of(report.read_text(encoding="utf-8"))["lesions"]
    assert len(places) == 3 and places[1] == places[2]


def test_a_line_a_lesion_and_every_one_is_counted_in_the_histogram(page):
    content = page()
    assert len(re.findall(r"<tr data-lesion=", content)) == 2
    assert "0 of &lt; 0.01 ml" not in content
    label = re.search(r'<svg.*?aria-label="([^"]*)"', content, re.DOTALL).group(1)
    assert "1 of &lt; 0.01 ml" in label and "1 of 0.1–0.3 ml" in label
    assert sum(int(n) for n in re.findall(r"(\d+) of ", label)) == 2


def test_whatever_stands_in_the_record_is_text(page):
    scan = {"name": EVIL, "path": EVIL}
    content = page(
        scan=scan,
        model={"name": EVIL},
        warnings=[{"sentence": EVIL}],
        files={"record": EVIL, EVIL: EVIL},
        recipe={EVIL: [EVIL]},
    )
    assert "<script>alert" not in content and "<b>" not in content
    assert len(re.findall("<script", content)) == 2
    assert content.count("&lt;script&gt;alert(1)") > 5


def test_probabilities_can_be_looked_at_only_if_there_are_some(page):
    probability = Scan(np.full(segmented()[1].voxels.shape, 0.5, np.float32), segmented()[1].header)
    assert set(np.unique(pictures_of(page(probability=probability))["volumes"]["probability"])) == {128}
    assert 'value="probability"' in page(probability=probability)
    assert 'value="probability"' not in page()


def test_mean_probabilities_are_a_column_only_where_known(page):
    large, small = record_of(segmented()[1])["lesions"]
    lesions = [large | {"mean_probability": 0.876}, small | {"mean_probability": None}]
    assert "0.88" in text_of(page(lesions=lesions))
    assert "mean probability" not in page()


def test_a_mask_without_lesions_has_its_page(page):
    assert "Lesions None." in text_of(page(lesions=[]))


def test_a_mask_of_another_grid_is_refused(tmp_path):
    scan, mask = segmented()
    with pytest.raises(ScanError, match=r"has shape \(39, 46, 18\), but its scan has \(40, 46, 18\)"):
        write_scan_report(record_of(mask), scan, Scan(mask.voxels[1:], mask.header), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_the_same_scan_gives_the_same_page(page):
    assert page() == page()


def test_without_the_extra_it_is_named(page, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(Planar3DError, match=r"pip install 'planar3d\[study\]'"):
        page()


def test_reports_load_no_heavy_library_until_they_are_written():
    program = (
        "import sys, planar3d.study.scan_report, planar3d.study.cohort_report\n"
        "print([m for m in ('tensorflow', 'keras', 'matplotlib', 'pandas', 'nilearn', 'jinja2') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.strip() == "[]"
