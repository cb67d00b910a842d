"""The reference of recipes, from the dataclasses themselves: every field, and its value in every recipe."""

import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

from planar3d.recipes import RECIPES, Recipe
from planar3d.sections import Section, fields_of

_FIELD = re.compile(r"    (\w+): .+?(?:  # (.*))?$")
_TYPES = {str: "text", int: "whole number", float: "number", bool: "true, false"}


def recipe_reference() -> str:
    """A page of Markdown on every section of a recipe, with its variants, and every field."""
    parts = [
        "# Recipes",
        "A recipe has all settings that change a result, in sections. `--recipe` takes a name, "
        f"{', '.join(f'`{name}`' for name in RECIPES)}, or a JSON file; `--set field=value` changes one field. "
        "A field may be named alone, `--set epochs=8`, or with its sections, `--set training.epochs=8`. "
        "A section with variants takes the name of one, `--set preparation=axial-slices`; fields that both variants "
        "have keep their values. In Python `recipe.epochs` is `recipe.training.epochs`, and "
        "`recipe.changed(epochs=8)` returns another recipe. [Fidelity](../fidelity.md) explains the choices. This page "
        "is generated from the code.",
        "Your own JSON file needs a `name`, and the fields that differ from the recipe of that name, or from "
        "`paper` if there is none. Files that the package writes (run folders, weights) have every field and their "
        "`format` number, 2; files of format 1, which had no sections, keep their meaning. A field that is missing in "
        "an older file has the value that was in use before the field existed.",
        "## Sections",
        *_sections(Recipe, ""),
    ]
    header = [f"| field | {' | '.join(f'`{name}`' for name in RECIPES)} |", "|---|" + "---|" * len(RECIPES)]
    parts += [
        "## Values",
        "Bold: differs from `paper`. –: the recipe's variants have no such field. A section's value is its variant.",
        "\n".join([*header, *_values()]),
    ]
    return "\n\n".join(parts) + "\n"


def _sections(made: type[Section], path: str) -> Iterator[str]:
    """A table of each section below one, and of each of its variants."""
    comments = _comments(made)
    for field in fields_of(made).values():
        if "table" not in field.metadata:
            continue
        place = f"{path}{field.name}"
        yield f"### `{place}`\n\n{_sentence(comments[field.name])}"
        for name, variant in (field.metadata["table"] or {"": field.metadata["section"]}).items():
            default = " (the default)" if name and variant is field.metadata["section"] else ""
            about = _sentence(inspect.cleandoc(variant.__doc__ or "").split("\n\n")[0].replace("\n", " "))
            yield f"`{place}={name}`{default}: {about}" if name else about
            if rows := _rows(variant):
                yield "\n".join(["| field | type or choices | default | meaning |", "|---|---|---|---|", *rows])
            yield from _sections(variant, f"{place}.")


def _rows(made: type[Section]) -> list[str]:
    kinds, comments = typing.get_type_hints(made), _comments(made)
    return [
        f"| `{field.name}` | {_kind(kinds[field.name])} | {_value(field.default)} | {comments[field.name]} |"
        for field in fields_of(made).values()
        if "table" not in field.metadata
    ]


def _comments(made: type[Section]) -> dict[str, str]:
    """The comments after the fields in the source of a class and of its base classes."""
    found: dict[str, str] = {}
    for cls in reversed(made.__mro__):
        if issubclass(cls, Section):
            fields = filter(None, map(_FIELD.match, inspect.getsource(cls).splitlines()))
            found |= {field[1]: field[2] or found.get(field[1], "") for field in fields}
    return found


def _kind(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        item, *more = typing.get_args(kind)
        kind = _kind(item) + ("s" if item in _TYPES else "")
        return f"{'list of' if more[0] is ... else len(more) + 1} {kind}"
    return _TYPES[kind]


def _values() -> Iterator[str]:
    leaves = [recipe.leaves() for recipe in RECIPES.values()]
    for place in dict.fromkeys(place for found in leaves for place in found if place != "name"):
        first = leaves[0].get(place)
        shown = [
            "–"
            if place not in found
            else _value(found[place])
            if found[place] == first
            else f"**{_value(found[place])}**"
            for found in leaves
        ]
        yield f"| `{place}` | {' | '.join(shown)} |"


def _value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(f"`{item}`" for item in value) or "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
