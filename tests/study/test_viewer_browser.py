"""The report of a scan in a headless browser; skipped where there is none, or no Playwright to drive it."""

import base64
import io

import matplotlib.image
import numpy as np
import pytest
from scan_pages import pictures_of, record_of, segmented

from planar3d.scans.volume import Scan
from planar3d.study.records import rating_file, read_rating
from planar3d.study.scan_report import write_scan_report

driver = pytest.importorskip("playwright.sync_api")

# Of each text that is shown, its contrast with its background, by WCAG 2; 4.5 can be read.
CONTRASTS = r"""() => {
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const line = (v) => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * line(r) + 0.7152 * line(g) + 0.0722 * line(b) + 0.05;
  const found = {};
  for (const each of document.querySelectorAll("body *")) {
    const text = [...each.childNodes].map((node) => (node.nodeType === 3 ? node.data : "")).join("").trim();
    if (!text || !each.checkVisibility()) continue;
    const { color, fill } = getComputedStyle(each);
    const around = [...document.querySelectorAll("*")].filter((other) => other.contains(each));
    const behind = around.map((other) => parts(getComputedStyle(other).backgroundColor)).findLast((c) => c[3] !== 0);
    const both = [parts(each.ownerSVGElement ? fill : color), behind].map(light);
    found[text] = Math.max(...both) / Math.min(...both);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser(chromium):
    """A window whose first tab stays open, so that the process behind its pages does; they store nothing in it."""
    with driver.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium)
        window = opened.new_context(viewport={"width": 1280, "height": 900})
        window.new_page()
        yield window
        opened.close()


class Report:
    """A page that is open, and what it said and asked for."""

    def __init__(self, tab, path):
        self.tab, self.path, self.said, self.requests = tab, path, [], []
        self.stopped = {}
        self.pictures = pictures_of(path.read_text(encoding="utf-8"))
        tab.on("console", lambda message: self.said.append(message.text))
        tab.on("pageerror", lambda error: self.said.append(str(error)))
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.on("requestfailed", lambda request: self.stopped.update({request.url: request.failure}))
        tab.goto(path.as_uri())
        tab.locator("#shown").wait_for(state="visible")
        self.settle()

    def settle(self):
        """Wait until what was asked for is drawn."""
        self.tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def do(self, selector, action, *values):
        getattr(self.tab.locator(selector), action)(*values)
        self.settle()

    def plane(self, name):
        return next(f'[data-view="{n}"]' for n, view in enumerate(self.pictures["views"]) if view["name"] == name)

    def drawn(self, name):
        return self.tab.locator(f"{self.plane(name)} canvas").evaluate("canvas => canvas.toDataURL()")

    def orange(self, name):
        """Where the mask is drawn in a plane, (rows, columns): all else is grey, or as bluish as the cross-hair."""
        png = base64.b64decode(self.drawn(name).partition(",")[2])
        picture = matplotlib.image.imread(io.BytesIO(png))
        return picture[..., 0] - picture[..., 2] > 0.25

    def cursor(self):
        """The sliders' places, (x, y, z)."""
        names = ("sagittal", "coronal", "axial")
        return [int(self.tab.locator(f"{self.plane(name)} input").input_value()) for name in names]

    def side(self, name, which):
        return self.tab.locator(f"{self.plane(name)} .{which}").text_content()


@pytest.fixture
def opened(browser, tmp_path):
    """Open the report of a small scan."""
    tab = browser.new_page()

    def open_report(axes="RAS", probability=False, targets=None, **changes):
        scan, mask = segmented(axes)
        path = tmp_path / "report.html"
        probabilities = Scan(mask.voxels * np.float32(0.9), mask.header) if probability else None
        write_scan_report(record_of(mask) | changes, scan, mask, path, probabilities, targets and targets(mask.voxels))
        return Report(tab, path)

    yield open_report
    tab.close()


def test_it_opens_without_a_complaint_and_asks_for_nothing_else(opened):
    report = opened()
    assert report.said == []
    assert report.requests == [report.path.as_uri()]
    assert report.cursor() == report.pictures["start"]


def test_a_screenshot_shows_bright_heads_with_orange_outlines_on_black(opened):
    picture = matplotlib.image.imread(io.BytesIO(opened().tab.locator("#viewer").screenshot()))
    red, blue = picture[..., 0], picture[..., 2]
    assert np.mean(red < 0.1) > 0.3
    assert np.mean((red > 0.4) & (abs(red - blue) < 0.02)) > 0.1
    assert np.count_nonzero(red - blue > 0.5) > 100


def test_every_text_stands_out_from_its_background(opened):
    found = opened().tab.evaluate(CONTRASTS)
    assert len(found) > 50
    assert {text: contrast for text, contrast in found.items() if contrast < 4.5} == {}


def test_a_slider_moves_its_plane(opened):
    report = opened()
    for name in ("axial", "coronal", "sagittal"):
        before, others = report.drawn(name), report.cursor()
        report.do(f"{report.plane(name)} input", "fill", "3")
        assert report.drawn(name) != before
        assert sum(a != b for a, b in zip(report.cursor(), others, strict=True)) == 1
        axis = next(view["axis"] for view in report.pictures["views"] if view["name"] == name)
        stored = report.tab.locator("#readout").text_content().partition("voxel ")[2].partition(" of")[0].split(", ")
        # Slices of the file, from 1; the page shows those around the head.
        shown = report.tab.locator(f"{report.plane(name)} .slice").text_content()
        assert shown == f"{name} {int(stored[axis]) + 1} of {segmented()[0].voxels.shape[axis]}"


def test_the_mask_goes_off_and_on(opened):
    report = opened()
    assert report.orange("axial").any()
    report.do("#overlay", "uncheck")
    assert not report.orange("axial").any()
    report.tab.keyboard.press("m")
    report.settle()
    assert report.orange("axial").any()


@pytest.mark.parametrize("axes", ["RAS", "LPI"])
def test_the_area_drawn_is_the_mask_voxel_by_voxel(opened, axes):
    report = opened(axes)
    report.do("#crosshair", "uncheck")
    report.do("#mode", "select_option", "fill")
    for view in report.pictures["views"]:
        mask = report.pictures["volumes"]["mask"].take(report.cursor()[view["axis"]], view["axis"])
        expected = mask.T[::-1] if view["columns"] < view["rows"] else mask[::-1]
        expected = expected[:, ::-1] if view["flip_columns"] else expected
        orange = report.orange(view["name"])
        for inside in (0.1, 0.9):  # of a voxel, near its edges, since nothing may be blurred
            places = [np.arange(n) + inside for n in expected.shape]
            at = [(p * pixels / len(p)).astype(int) for p, pixels in zip(places, orange.shape, strict=True)]
            np.testing.assert_array_equal(orange[np.ix_(*at)], expected == 1, err_msg=view["name"])


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL"])
def test_a_lesion_on_the_right_is_drawn_at_the_side_named_right(opened, axes):
    report = opened(axes)
    for convention, letters in (("left", "LR"), ("right", "RL")):
        report.do("#convention", "select_option", convention)
        for name in ("axial", "coronal"):
            assert report.side(name, "left") + report.side(name, "right") == letters
            orange = report.orange(name)
            half = 0 if letters[0] == "R" else 1
            assert np.array_split(orange, 2, axis=1)[half].any()
            assert not np.array_split(orange, 2, axis=1)[1 - half].any()
    assert [report.side("axial", side) for side in ("top", "bottom")] == ["A", "P"]
    assert [report.side("sagittal", side) for side in ("left", "right", "top", "bottom")] == ["A", "P", "S", "I"]


def test_a_line_of_the_table_leads_to_its_lesion(opened):
    report = opened()
    for number in (1, 0):
        report.do(f'tr[data-lesion="{number}"]', "click")
        assert report.cursor() == report.pictures["lesions"][number]
        assert f"lesion {number + 1} of 2" in report.tab.locator("#lesion").text_content()
        assert "· lesion" in report.tab.locator("#readout").text_content()
    report.do("#next", "click")
    assert report.cursor() == report.pictures["lesions"][1]


def test_columns_sort_by_their_numbers_both_ways(opened):
    large, small = record_of(segmented()[1])["lesions"]
    lesions = [large | {"lesion": n, "volume_ml": ml} for n, ml in enumerate((0.5, 0.25, 10, 9), start=1)]
    report = opened(lesions=[*lesions, small | {"lesion": 5}])
    head = report.tab.locator("th:has-text('volume') button")
    for expected in (["5", "2", "1", "4", "3"], ["3", "4", "1", "2", "5"]):
        head.click()
        assert report.tab.locator("tr[data-lesion] button").all_text_contents() == expected


def test_targets_have_colours_a_legend_and_lines_of_their_own(opened):
    large, small = record_of(segmented()[1])["lesions"]
    lesions = [large | {"target": "whole"}, large | {"target": "core"}, small | {"target": "core"}]
    report = opened(targets=lambda mask: {"whole": mask > 0, "core": np.roll(mask, 9, axis=1) > 0}, lesions=lesions)
    orange, both = report.orange("axial"), report.drawn("axial")
    assert orange.any()
    report.do(".target >> nth=1", "uncheck")
    assert report.drawn("axial") != both and (report.orange("axial") == orange).all()
    report.do(".target >> nth=0", "uncheck")
    assert not report.orange("axial").any()
    report.do("#reset", "click")
    assert report.drawn("axial") == both
    report.do('tr[data-lesion="2"]', "click")
    assert report.tab.locator("#lesion").text_content() == "core, lesion 2"
    assert report.tab.locator("#readout").text_content().endswith("· core")
    report.tab.locator("th:has-text('target') button").click()
    cells = [row.split()[1] for row in report.tab.locator("tr[data-lesion]").all_inner_texts()]
    assert cells == ["core", "core", "whole"]
    assert report.said == []


def test_a_click_in_a_plane_moves_the_other_two(opened):
    report = opened()
    canvas = report.tab.locator(f"{report.plane('axial')} .picture")
    box = canvas.bounding_box()
    *_, z = report.cursor()
    columns, rows, _ = report.pictures["shape"]
    canvas.click(position={"x": box["width"] * 5.5 / columns, "y": box["height"] * 2.5 / rows})
    report.settle()
    assert report.cursor() == [5, rows - 3, z]


def test_wheel_and_keys_move_by_a_slice(opened):
    report = opened()
    x, y, z = report.cursor()
    report.tab.locator(f"{report.plane('axial')} .picture").focus()
    places = [x + 1, y, z], [x + 1, y + 1, z], [x + 1, y + 1, z + 1]
    for key, expected in zip(("ArrowRight", "ArrowUp", "PageUp"), places, strict=True):
        report.tab.keyboard.press(key)
        report.settle()
        assert report.cursor() == expected
    report.tab.locator(f"{report.plane('axial')} .picture").hover()
    report.tab.mouse.wheel(0, 120)
    report.tab.wait_for_function(f"document.querySelector('{report.plane('axial')} input').value == {z}")


def test_thick_slices_are_shown_in_their_true_proportions(opened):
    report = opened()
    mm = np.multiply(report.pictures["shape"], report.pictures["spacing_mm"])
    for name, columns, rows in (("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2)):
        box = report.tab.locator(f"{report.plane(name)} canvas").bounding_box()
        assert box["width"] / box["height"] == pytest.approx(mm[columns] / mm[rows], rel=0.02)


def test_contrast_opacity_and_probability_change_the_picture_and_reset_restores_it(opened):
    report = opened(probability=True)
    first = report.drawn("axial")
    for selector, action, value in (
        ("#contrast", "fill", "40"),
        ("#brightness", "fill", "-30"),
        ("#opacity", "fill", "50"),
        ("#mode", "select_option", "probability"),
    ):
        before = report.drawn("axial")
        report.do(selector, action, value)
        assert report.drawn("axial") != before
    report.do("#reset", "click")
    assert report.drawn("axial") == first


def test_a_plane_can_be_enlarged(opened):
    report = opened()
    canvas = report.tab.locator(f"{report.plane('axial')} canvas")
    before = canvas.bounding_box()["width"]
    report.do(f"{report.plane('axial')} .enlarge", "click")
    assert canvas.bounding_box()["width"] > before
    assert not report.tab.locator(f"{report.plane('coronal')} canvas").is_visible()


def test_a_name_that_is_a_program_does_not_run(opened):
    evil = "</script><img src=x onerror='document.title=1'><script>document.title=1</script>"
    report = opened(scan={"name": evil}, warnings=[{"sentence": evil}], files={"record": evil, evil: evil})
    assert report.tab.title().startswith("</script>")
    assert report.said == [] and len(report.requests) == 1


def test_a_program_smuggled_into_the_file_is_stopped_by_its_policy(opened):
    report = opened()
    page = report.path.read_text(encoding="utf-8")
    smuggled = "<script>document.title='run'</script><img src='https://example.org/x.png'>"
    report.path.write_text(page.replace("<h1>", smuggled + "<h1>"), encoding="utf-8")
    again = Report(report.tab, report.path)
    assert again.tab.title() != "run"
    assert any("Content Security Policy" in text for text in again.said)
    assert again.stopped == {"https://example.org/x.png": "csp"}


def test_a_rating_is_saved_as_a_file_that_the_page_of_all_scans_reads(opened, tmp_path):
    report = opened()
    report.do("form.rating input[value=flag]", "check")
    report.tab.locator("form.rating input[name=comment]").press_sequentially("motion near the top")
    assert report.tab.locator("#overlay").is_checked()  # no letter of the comment is a key of the viewer
    with report.tab.expect_download() as saved:
        report.do("form.rating button", "click")
    assert report.said == []
    file, record = tmp_path / "sub-01_FLAIR.json", record_of(segmented()[1])
    assert saved.value.suggested_filename == rating_file(file).name
    saved.value.save_as(rating_file(file))
    assert read_rating(file, record) == "flag: motion near the top"


def test_planes_lie_side_by_side_on_paper_and_below_each_other_on_a_narrow_screen(opened):
    report = opened()
    report.tab.set_viewport_size({"width": 390, "height": 800})

    def tops():
        return {report.tab.locator(f"{report.plane(name)} canvas").bounding_box()["y"] for name in ("axial", "coronal")}

    assert len(tops()) == 2
    assert report.tab.evaluate("document.documentElement.scrollWidth") <= 390
    frame = report.tab.locator("#viewer").bounding_box()
    for control in report.tab.locator("#viewer").get_by_role("combobox").all():
        box = control.bounding_box()
        assert box["x"] + box["width"] <= frame["x"] + frame["width"]
    report.tab.set_viewport_size({"width": 720, "height": 800})  # of paper
    assert len(tops()) == 2
    report.tab.emulate_media(media="print")
    assert len(tops()) == 1
    assert report.tab.locator(".rating").is_hidden()
