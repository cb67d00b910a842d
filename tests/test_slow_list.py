"""slow.txt names tests and fixtures that exist: a slow test that was renamed would run as a quick one."""

import ast
import functools

from conftest import SLOW, TESTS


@functools.cache
def names_in(file):
    """Functions of a file, methods and nested ones too, and what it gives names to."""
    nodes = list(ast.walk(ast.parse((TESTS / file).read_text())))
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return functions | {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def test_every_line_names_a_test_or_a_fixture():
    missing = []
    for line in SLOW.read_text().split():
        file, _, name = line.partition("::")
        # A fixture of conftest.py is recorded with the file whose test asked for it first.
        if not (TESTS / file).exists() or name not in names_in(file) | names_in("conftest.py"):
            missing.append(line)
    assert not missing, f"rename or remove in tests/slow.txt: {missing}"
