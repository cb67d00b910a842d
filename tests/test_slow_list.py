"""slow.txt names tests and fixtures that exist: a slow test that was renamed would run as a quick one."""

import ast
import functools

from conftest import SLOW, TESTS


@functools.cache
def names_in(file):
    """The tests and fixtures of a file, those of classes and functions too."""
    nodes = ast.walk(ast.parse((TESTS / file).read_text()))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    return {
        function.name
        for function in functions
        if function.name.startswith("test_") or any("fixture" in ast.unparse(mark) for mark in function.decorator_list)
    }


def test_every_line_names_a_test_or_a_fixture():
    missing = []
    for line in SLOW.read_text().split():
        file, _, name = line.partition("::")
        # A fixture of conftest.py is recorded with the file whose test asked for it first.
        if not (TESTS / file).exists() or name not in names_in(file) | names_in("conftest.py"):
            missing.append(line)
    assert not missing, f"rename or remove in tests/slow.txt: {missing}"


def test_other_functions_and_assigned_names_are_neither():
    assert names_in("test_slow_list.py") == {test_every_line_names_a_test_or_a_fixture.__name__, _OWN}
    assert "data" in names_in("test_cli.py") and "SETTINGS" not in names_in("test_cli.py")


_OWN = test_other_functions_and_assigned_names_are_neither.__name__
