"""Scripts outside the package, many of which take too long for a test, use names that the package has."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(p for folder in ("scripts", "benchmarks", "experiments") for p in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_script_imports_of_the_package_is_there(script):
    assert [name for name in names_imported(script.read_text()) if not is_there(*name)] == []


def test_a_name_that_the_package_lacks_is_found():
    text = "def call():\n    from planar3d.scans.windows import compose, forgotten\n"
    assert [name for name in names_imported(text) if not is_there(*name)] == [("planar3d.scans.windows", "forgotten")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_ends_bad_input_in_a_sentence_as_the_commands_do(script):
    assert how_it_runs(script.read_text()) <= {"main", "run_in_sentences"}


def test_a_script_that_would_end_in_a_traceback_is_found():
    assert how_it_runs('if __name__ == "__main__":\n    typer.run(main)\n') == {"typer.run"}


def how_it_runs(text: str) -> set[str]:
    """What is called at the end of a file that is run; of settings of the environment only what follows them."""
    last = ast.parse(text).body[-1:]
    guarded = [node for node in last if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"]
    return {ast.unparse(node.body[-1].value.func) for node in guarded}


def names_imported(text: str) -> Iterator[tuple[str, str]]:
    """(module, name) of what is imported of planar3d, within functions too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "planar3d":
            yield from ((str(node.module), alias.name) for alias in node.names)


def is_there(module: str, name: str) -> bool:
    """Whether a module has a name, or a module of that name lies in it."""
    if hasattr(importlib.import_module(module), name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True
