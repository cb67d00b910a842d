"""What the documentation tells readers to type: commands that the app takes, Python that names what is there."""

import ast
import importlib
import inspect
import re
import runpy
import shlex
from pathlib import Path

import pytest
import typer

import planar3d
from planar3d.cli import app
from planar3d.recipes import find_recipe

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "weights/README.md", *ROOT.glob("docs/**/*.md")])
COMMANDS = typer.main.get_command(app).commands
MADE_BY_THE_BUILD = {ROOT / "docs/reference" / f"{name}.md" for name in ("commands", "recipes", "python")}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(page, language):
    return [text for kind, text in _FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def each_line():
    """Every line of every shell block that runs this package, with its page."""
    for page in PAGES:
        for line in "\n".join(blocks(page, "bash") + blocks(page, "")).replace("\\\n", "").splitlines():
            if re.match(r"(\w+=\S+ )*(planar3d|python \w+/\w+\.py) ", line):
                yield pytest.param(line, id=f"{page.stem}: {line}")


def command_of(words):
    """The command that a line runs, and its arguments."""
    words = words[next(i for i, word in enumerate(words) if "=" not in word) :]
    if words[0] == "planar3d":
        return COMMANDS[words[1]], words[2:]
    script = ROOT / words[1]
    (function,) = re.findall(r"^    main\((\w+)\)$", script.read_text(encoding="utf-8"), re.M)
    alone = typer.Typer(add_completion=False)
    alone.command()(runpy.run_path(str(script))[function])
    return typer.main.get_command(alone), words[2:]


@pytest.mark.parametrize("line", each_line())
def test_a_command_line_is_one_that_the_app_takes(line):
    words = shlex.split(line, comments=True)
    if words[1:] and words[-2] == ">":
        words = words[:-2]
    if "benchmarks/" in line:
        assert (ROOT / next(word for word in words if word.startswith("benchmarks/"))).is_file()
        return
    command, arguments = command_of(words)
    params = command.make_context(command.name, arguments).params
    find_recipe("paper").with_settings(list(params.get("settings") or []))
    if params.get("recipe"):
        find_recipe(params["recipe"])


def test_options_in_the_text_exist():
    known = {option for command in COMMANDS.values() for param in command.params for option in param.opts}
    known |= {"--help", "--demo", "--strict"}
    for page in PAGES:
        text = _FENCE.sub("", page.read_text(encoding="utf-8"))
        for span in re.findall(r"`([^`\n]+)`", text):
            assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", span)) <= known, f"{page}: {span}"
            if name := re.match(r"planar3d ([a-z]+)", span):
                assert name[1] in COMMANDS, f"{page}: {span}"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: page.stem)
def test_python_names_what_is_there(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("planar3d"):
                home = importlib.import_module(node.module)
                assert all(hasattr(home, alias.name) for alias in node.names), ast.unparse(node)
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("p3."):
                function = getattr(planar3d, node.func.attr)
                inspect.signature(function).bind(*node.args, **{key.arg: key.value for key in node.keywords})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page):
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        target = (page.parent / link).resolve()
        assert "://" in link or target.exists() or target in MADE_BY_THE_BUILD, f"{page}: {link}"
