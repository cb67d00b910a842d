"""The reference of recipes, from the dataclass itself: every field, and its value in every recipe."""

import dataclasses
import inspect
import re
import types
import typing
from typing import Any, NamedTuple

from planar3d.recipes import RECIPES, Recipe

_FIELD = re.compile(r"    (\w+): [^#]+?(?:  # (.*))?$")
_HEADING = re.compile(r"    # (.+)$")


class _Field(NamedTuple):
    name: str
    kind: str
    default: str
    comment: str


def recipe_reference() -> str:
    """A page of Markdown on every field of a recipe, by the sections of the dataclass."""
    sections = _sections()
    names = [field.name for fields in sections.values() for field in fields]
    parts = [
        "# Recipes",
        "A recipe is every choice that changes a result. `--recipe` takes a name, "
        f"{', '.join(f'`{name}`' for name in RECIPES)}, or a JSON file; `--set field=value` changes one field. "
        "Made from the code. What the fields are for stands in [fidelity](../fidelity.md).",
        "A JSON file that you write needs its `name`, and what differs from the recipe of that name or else from "
        "`paper`. Files that the package writes (run folders, weights) hold every field and the number of their "
        "`format`; a field that an older one lacks means what was done before there was that field.",
        "## Fields",
    ]
    for title, fields in sections.items():
        rows = [f"| `{f.name}` | {f.kind} | {f.default} | {f.comment} |" for f in fields]
        parts += [
            f"### {title}",
            "\n".join(["| field | type or choices | default | meaning |", "|---|---|---|---|", *rows]),
        ]
    header = [f"| field | {' | '.join(f'`{name}`' for name in RECIPES)} |", "|---|" + "---|" * len(RECIPES)]
    parts += [
        "## Values",
        "Bold: other than in `paper`.",
        "\n".join([*header, *(_values(name) for name in names)]),
    ]
    return "\n\n".join(parts) + "\n"


def _sections() -> dict[str, list[_Field]]:
    """The fields below the comments that head them, with their own comments."""
    kinds = typing.get_type_hints(Recipe)
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    sections: dict[str, list[_Field]] = {"Name": []}
    for line in inspect.getsource(Recipe).splitlines():
        if heading := _HEADING.match(line):
            sections[heading[1]] = []
        elif (field := _FIELD.match(line)) and field[1] in defaults:
            default = defaults[field[1]]
            shown = "required" if default is dataclasses.MISSING else _value(default)
            sections[list(sections)[-1]].append(_Field(field[1], _kind(kinds[field[1]]), shown, field[2] or ""))
    return sections


def _kind(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(kind))
    if isinstance(kind, types.GenericAlias):
        item, *more = typing.get_args(kind)
        return f"list: {_kind(item)}" if more else _kind(item)
    return {str: "text", int: "whole number", float: "number"}[kind]


def _values(name: str) -> str:
    values = [getattr(recipe, name) for recipe in RECIPES.values()]
    shown = [_value(v) if v == values[0] or name == "name" else f"**{_value(v)}**" for v in values]
    return f"| `{name}` | {' | '.join(shown)} |"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value) or "none"
    return f"`{value}`"
