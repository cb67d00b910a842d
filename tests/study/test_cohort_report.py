import os
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from scan_pages import record_of, segmented, text_of

from planar3d.files import write_json, write_text
from planar3d.study.cohort_report import write_cohort_report
from planar3d.study.page import histogram
from planar3d.study.records import rating_file, read_rating

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def page(tmp_path):
    """Write the report of records by their files in the test's folder, and return the page."""

    def write(records, failed=None):
        found = [(tmp_path / "out" / file, record) for file, record in records.items()]
        for file, record in found:
            for name in ("mask", "report"):
                write_text(file.parent / record["files"].get(name, f"no {name}"), "")
        path = write_cohort_report(tmp_path / "out", found, failed or {})
        assert path == tmp_path / "out" / "report.html"
        return path.read_text(encoding="utf-8")

    return write


@pytest.fixture(scope="module")
def mask():
    return segmented()[1]


def test_every_scan_has_its_line_and_the_headline_sums_them(page, mask):
    records = {f"{name}.json": record_of(mask, name) for name in ("a", "b")}
    records["b.json"]["result"] = {"lesions": 30, "volume_ml": 12.5, "largest_ml": 4.0}
    records["b.json"]["warnings"] = []
    content = page(records)
    text = text_of(content)
    for words in ("Lesions of 2 scans", "lesions 32", "total volume 12.8 ml", "with warnings 1", "failed 0"):
        assert words in text
    assert "b 30 12.50 4.00 1 × 1.2 × 3 –" in text
    assert "not a medical device" in text


@pytest.mark.parametrize(
    "file", ["a.json", "sub-01/anat/a #1.json", "../elsewhere/a.json", "javascript:alert(1)/a.json"]
)
def test_links_lead_from_the_page_to_the_reports_of_the_scans(page, mask, tmp_path, file):
    (link, *_) = re.findall(r'href="([^"]*)"', page({file: record_of(mask, "a")}))
    assert ":" not in link and "#" not in link
    meant = (tmp_path / "out" / file).parent / "a_report.html"
    assert os.path.normpath(tmp_path / "out" / unquote(link)) == os.path.normpath(meant)


def test_a_reader_s_rating_beside_a_record_is_shown_and_one_of_another_mask_is_not(page, mask, tmp_path):
    records = {f"{name}.json": record_of(mask, name) for name in "abcdef"}
    digest = records["a.json"]["result"]["mask_sha256"]
    write_json(tmp_path / "out/a_rating.json", {"rating": "exclude", "mask_sha256": digest, "comment": EVIL})
    write_json(tmp_path / "out/b_rating.json", {"rating": "pass", "mask_sha256": "0"})
    write_text(tmp_path / "out/c_rating.json", "{")
    write_json(tmp_path / "out/e_rating.json", {"rating": "pass", "mask_sha256": digest})
    write_text(tmp_path / "out/e_rating (1).json", "{}")
    write_json(tmp_path / "out/f_rating.json", {"rating": ["pass"], "mask_sha256": digest})
    content = page(records)
    text = text_of(content)
    assert "exclude: &lt;script&gt;" in text and EVIL not in content
    assert "the rating is for another mask" in text and "unreadable: c_rating.json" in text
    assert "unreadable: f_rating.json" in text
    assert "several ratings: keep one as e_rating.json, and remove e_rating (1).json" in text
    assert "rating" not in text_of(page({"d.json": records["d.json"]}))


@pytest.mark.parametrize("name", ['T2*: "a"<b>|c?~50%\\', os.fsdecode(b"\xed")])
def test_a_rating_is_found_also_if_browsers_replace_characters_of_the_scan_s_name(mask, tmp_path, name):
    file, record = tmp_path / "out" / f"{name}.json", record_of(mask, name)
    rating = {"rating": "pass", "mask_sha256": record["result"]["mask_sha256"]}
    assert not set(rating_file(file).name) & set('"*/:<>?\\|~%') and rating_file(file).name.isprintable()
    write_json(rating_file(file), rating)
    assert read_rating(file, record) == "pass"


def test_a_scan_without_a_report_is_listed_without_a_link(page, mask, tmp_path):
    gone = record_of(mask, "b") | {"files": {"mask": "b_mask.nii.gz", "report": "../c_report.html"}}
    records = {"a.json": record_of(mask, "a") | {"files": {"mask": "a_mask.nii.gz"}}, "b.json": gone}
    assert "href" in page(records)
    (tmp_path / "c_report.html").unlink()
    path = write_cohort_report(tmp_path / "out", [(tmp_path / "out" / file, one) for file, one in records.items()], {})
    content = path.read_text(encoding="utf-8")
    assert "href" not in content and '<th scope="row" class="words">a</th>' in content


def test_a_scan_whose_mask_is_gone_is_marked(page, mask, tmp_path):
    record = record_of(mask, "a") | {"warnings": []}
    assert "does not exist" not in page({"a.json": record})
    (tmp_path / "out/a_mask.nii.gz").unlink()
    path = write_cohort_report(tmp_path / "out", [(tmp_path / "out/a.json", record)], {})
    assert "a_mask.nii.gz does not exist. Run predict again." in text_of(path.read_text(encoding="utf-8"))


def test_failed_scans_are_named_with_their_sentence(page, mask):
    content = page({"a.json": record_of(mask)}, {"/data/b.nii": "/data/b.nii is 4-D; one volume is needed."})
    assert "failed 1" in text_of(content)
    assert "/data/b.nii /data/b.nii is 4-D; one volume is needed." in text_of(content)


def test_if_all_failed_the_page_says_so(page):
    text = text_of(page({}, {"b.nii": "b.nii is damaged."}))
    assert "Lesions of 0 scans" in text and "b.nii is damaged." in text


def test_conditions_are_told_apart_into_shared_and_differing(page, mask):
    records = {f"{name}.json": record_of(mask, name) for name in ("a", "b", "c")}
    records["c.json"]["versions"] = {"planar3d": "0.1.0", "keras": "3.14.0"}
    text = text_of(page(records))
    differing, shared = text.split("Conditions of all scans")
    assert "Versions: keras 3.15.1 a, b Versions: keras 3.14.0 c" in differing
    assert "keras" not in shared and "planar3d 0.1.0" in shared and "frozen encoder" in shared
    assert "5ca" not in text  # a scan's own


def test_conditions_of_scans_that_share_a_name_differ_too(page, mask):
    other = record_of(mask, "FLAIR") | {"model": {"name": "other", "sha256": "1"}}
    text = text_of(page({"a/FLAIR.json": record_of(mask, "FLAIR"), "b/FLAIR.json": other}))
    assert "Model: name ms-flair FLAIR" in text and "Model: name other FLAIR" in text


def test_every_scan_is_counted_in_both_histograms(page, mask):
    records = {f"{n}.json": record_of(mask, str(n)) for n in range(5)}
    for lesions, record in zip((0, 1, 4, 100, 1000), records.values(), strict=True):
        record["result"] = {"lesions": lesions, "volume_ml": lesions / 10, "largest_ml": 0.1}
    labels = re.findall(r'<svg.*?aria-label="([^"]*)"', page(records), re.DOTALL)
    assert [[int(n) for n in re.findall(r"(\d+) of ", label)] for label in labels] == [
        [1, 1, 1, 0, 0, 1, 0, 1],
        [1, 1, 1, 0, 0, 0, 0, 2],
    ]
    assert histogram([0, 1, 1, 4], (1, 2), "abc") == [("a", 1, 0.5), ("b", 2, 1.0), ("c", 1, 0.5)]


def test_of_several_targets_each_has_its_column_and_histogram(page, mask):
    records = {f"{n}.json": record_of(mask, str(n)) for n in range(3)}
    for n, record in enumerate(records.values()):
        record["result"]["targets_ml"] = {"WT": 40.0 * n, "ET": 0.2 * n}
    content = page(records)
    text = text_of(content)
    assert "Targets of 3 scans" in text and "scan WT [ml] ET [ml] voxel [mm]" in text and "2 80.00 0.40" in text
    labels = re.findall(r'<svg.*?aria-label="([^"]*)"', content, re.DOTALL)
    assert [label.partition(":")[0] for label in labels] == ["scans by WT volume in ml", "scans by ET volume in ml"]
    assert "2 of 30–100 ml" in labels[0] and "1 of 0.1–0.3 ml" in labels[1]
    assert "Number of lesions" not in text and "total volume" not in text


def test_whatever_stands_in_the_records_is_text(page, mask):
    record = record_of(mask, EVIL) | {"warnings": [{"sentence": EVIL}], "model": {EVIL: EVIL}}
    content = page({"a.json": record}, {Path(EVIL): EVIL})
    assert len(re.findall("<script", content)) == 1
    assert "http://" not in content and "https://" not in content


def test_the_page_can_be_made_again(page, mask):
    records = {"a.json": record_of(mask, "a")}
    assert page(records) == page(records)


def test_one_scan_with_one_lesion_is_not_many(page, mask):
    record = record_of(mask, "a") | {"result": {"lesions": 1, "volume_ml": 0.5, "largest_ml": 0.5}}
    content = page({"a.json": record})
    assert "Lesions of 1 scan<" in content and "<title>1 lesion: 1</title>" in content
    assert not re.search(r"\b1 (scans|lesions)\b", content)
