"""The documentation: it builds without warnings, needs no connection, and says of the code what the code says."""

import ast
import html
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer

import planar3d
from planar3d.cli import app
from planar3d.evaluation.challenges import ALL_MEASURES
from planar3d.evaluation.quality import _CHECKS
from planar3d.recipes import RECIPES

ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(app).commands


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


def read(site, page):
    """A page's text as it is read, without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", (site / page).read_text(encoding="utf-8")))


def test_every_command_and_option_is_in_the_reference(site):
    text = (site / "reference/commands.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<h2 id="(\w+)">(.*?)(?=<h2|</article>)', text, re.S))
    for name, command in COMMANDS.items():
        assert html.escape(command.help, quote=False) in sections[name]
        for param in command.params:
            shown = param.opts[0] if param.opts[0].startswith("--") else param.name.upper()
            assert shown in sections[name], f"{name} {shown}"
            assert html.escape(param.help, quote=False) in sections[name], f"{name} {shown}"
    assert "--demo" in sections["reproduce"]


def shown_as(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_recipe_s_fields_are_in_the_reference_with_their_values(site):
    text = (site / "reference/recipes.html").read_text(encoding="utf-8")
    fields, values = text.split('id="values"')
    assert re.findall(r"<td><code>(\w+)</code></td>(?:(?!</tr>).)*<td></td>\s*</tr>", fields, re.S) == []  # no meaning
    rows = {row[0]: row[1:] for row in (re.findall(r"<td>(.*?)</td>", r) for r in values.split("<tr>")) if row}
    for recipe, column in zip(RECIPES.values(), range(len(RECIPES)), strict=True):
        for place, value in recipe.leaves().items():
            if place == "name":
                continue
            field = f"<td><code>{place.rpartition('.')[2]}</code></td>"
            assert field in fields or f"<code>{place}={value}</code>" in fields
            shown = re.findall(r"<code>(.*?)</code>", rows[f"<code>{place}</code>"][column])
            assert shown == [shown_as(v) for v in (value if isinstance(value, list) else [value])], (place, recipe.name)


def test_every_public_name_is_in_the_reference(site):
    text = read(site, "reference/python.html")
    for name in set(planar3d.__all__) - {"__version__"}:
        assert re.search(rf"\b{name}\b", text), name
    assert "planar3d.PlanarResUNet" in text and "input_shape" in text


def test_what_functions_return_is_whole_in_the_reference(site):
    """A colon in the first line would make what precedes it a type, without its parentheses."""
    text = " ".join(read(site, "reference/python.html").split())
    defined = [node for path in ROOT.glob("planar3d/**/*.py") for node in ast.parse(path.read_text("utf-8")).body]
    lines = {
        f"{node.name}: {line}": line.replace("`", "")
        for node in defined
        if getattr(node, "name", "") in planar3d.__all__
        for line in re.findall(r"^Returns:\n +(.*)", ast.get_docstring(node) or "", re.M)
    }
    assert len(lines) > 20 and [place for place, line in lines.items() if line not in text] == []


@pytest.mark.parametrize(
    ("page", "names"),
    [("reference/outputs.html", _CHECKS), ("reference/run-folder.html", ALL_MEASURES)],
    ids=["quality checks", "measures"],
)
def test_what_files_hold_is_in_the_reference(site, page, names):
    text = (site / page).read_text(encoding="utf-8")
    assert [name for name in names if f"<code>{name}</code>" not in text] == []


def test_every_environment_variable_is_in_the_reference(site):
    read_by_code = re.compile(
        r"environ(?:\.get|\.setdefault)?[(\[]\"(\w+)\"|\"(\w+)\" in os\.environ|(PLANAR3D_[A-Z_]+)"
    )
    sources = (path.read_text(encoding="utf-8") for path in ROOT.glob("planar3d/**/*.py"))
    names = {name for source in sources for match in read_by_code.findall(source) for name in match if name}
    assert "PLANAR3D_OFFLINE" in names
    text = (site / "reference/environment.html").read_text(encoding="utf-8")
    assert [name for name in names if f"<code>{name}</code>" not in text] == []


def test_examples_are_code_with_their_results(site):
    assert "<blockquote>" not in (site / "reference/python.html").read_text(encoding="utf-8")
    assert """>>> map_kernel(np.ones((3, 3, 16, 32), "float32")).shape\n(1, 3, 3, 16, 32)\n""" in read(
        site, "reference/python.html"
    )


class Loaded(HTMLParser):
    """The addresses that a browser fetches by itself to show a page."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [
            value for name, value in attrs if name in ("src", "srcset") or (tag, name) == ("link", "href")
        ]


def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        parser = Loaded()
        parser.feed(page.read_text(encoding="utf-8"))
        for address in parser.addresses:
            assert not re.match(r"(https?:)?//", address), f"{page}: {address}"
            local = address.partition("?")[0].partition("#")[0]
            assert page.name == "404.html" or address.startswith("data:") or (page.parent / local).exists(), address
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style


@pytest.fixture(scope="module")
def browser(chromium):
    driver = pytest.importorskip("playwright.sync_api")
    with driver.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium)
        yield opened
        opened.close()


def test_the_search_finds_a_page_without_a_server(site, browser):
    tab = browser.new_page()
    tab.goto(f"{(site / 'index.html').as_uri()}?q=threshold")
    tab.get_by_text("matching documents").wait_for()
    tab.locator("mark").first.wait_for()


def test_on_a_phone_names_in_tables_are_whole(site, browser):
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    for page in ("results.html", "reference/commands.html", "reference/recipes.html"):
        tab.goto((site / page).as_uri())
        names = tab.locator("td code, th code").filter(has_text=re.compile(r"^\w+$"))
        lines = names.evaluate_all("all => all.map(name => [name.textContent, name.getClientRects().length])")
        assert lines and [name for name, number in lines if number > 1] == [], page


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name
)
def test_rows_of_tables_and_items_of_lists_are_whole(page):
    cells = 0
    for number, line in enumerate(
        re.sub(r"(?s)```.*?```|`[^`\n]*`", "", page.read_text("utf-8")).splitlines(), start=1
    ):
        found = len(re.findall(r"(?<!\\)\|", line))
        if line.startswith("|---") or line.startswith("| ---"):
            cells = found
        elif not line.startswith("|"):
            cells = 0
        assert not cells or found == cells, f"{page.name}, line {number} without code: {line}"
        assert line.startswith("|") or found < 3, f"{page.name}, line {number} is a row torn off its table: {line}"
        merged = re.search(r"[.;:] (- |[2-9]\. )", line)
        assert line.startswith("|") or not merged, f"{page.name}, line {number} holds two items of a list: {line}"
