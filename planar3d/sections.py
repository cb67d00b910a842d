"""Sections of a recipe: frozen dataclasses of plain values, validated on creation, to and from JSON.

A section with variants is chosen by name from a table; the variant defines what is done, and its fields define how.
"""

import dataclasses
import difflib
import math
import operator
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from planar3d.errors import RecipeError

Content = dict[str, Any]
Variants = Mapping[str, "type[Section]"]  # of a section, by name


def meant(name: str, known: Iterable[str]) -> str:
    """A question that names the known field most similar to an unknown one, if any is."""
    fields = {field.rpartition(".")[2]: field for field in known}
    near = difflib.get_close_matches(name.rpartition(".")[2], fields, 1)
    return f" Did you mean {fields[near[0]]}?" if near else ""


class UnknownFieldError(RecipeError):
    """Fields that a recipe does not have, possibly from a later version."""

    def __init__(self, where: str, unknown: list[str], known: list[str]) -> None:
        super().__init__(f"{where} has no field {unknown[0]!r}.{meant(unknown[0], known)} It has: {', '.join(known)}.")
        self.unknown = unknown


class UnknownVariantError(RecipeError):
    """A section's variant that is not in its table, possibly of a user's own program."""


class Limit(NamedTuple):
    """A condition for a field besides its type, and the sentence if it fails."""

    holds: Callable[[Any], bool]
    sentence: str


POSITIVE = Limit(lambda v: v > 0, "it must be greater than 0")
NOT_NEGATIVE = Limit(lambda v: v >= 0, "it must not be negative")
SHARE = Limit(lambda v: 0 <= v <= 1, "a share from 0 to 1 is needed")
# Of float32, in which networks and optimizers compute.
_LEAST, _GREATEST = 1.2e-38, 3.4e38
MULTIPLE_OF_16 = Limit(
    lambda v: v >= 16 and v % 16 == 0, "a multiple of 16, at least 16, is needed for the network's four poolings"
)


def plausible(least: float, most: float) -> Limit:
    """A generous limit for the sizes of prepared scans: values beyond are slips, damaged or malicious."""
    return Limit(lambda v: least <= v <= most, f"{least:g} to {most:g} is plausible")


class Section:
    """A part of a recipe. Subclasses are frozen dataclasses; `Annotated` with a `Limit` limits a field.

    Raises:
        RecipeError: the value of a field is not one of its choices, or out of range.
    """

    name: ClassVar[str] = ""  # of a variant in its table

    def __post_init__(self) -> None:
        kinds = typing.get_type_hints(type(self), include_extras=True)
        for name in fields_of(type(self)):
            object.__setattr__(self, name, _checked(name, kinds[name], getattr(self, name)))
        self.check()

    def check(self) -> None:
        """Raise a `RecipeError` for incompatible fields."""

    def to_json(self) -> Content:
        """The section as plain JSON values, a variant with its `name`."""
        content: Content = {"name": self.name} if type(self).__dict__.get("name") else {}
        for name in fields_of(type(self)):
            value = getattr(self, name)
            plain = list(value) if isinstance(value, tuple) else value
            content[name] = value.to_json() if isinstance(value, Section) else plain
        return content

    @classmethod
    def made(cls, content: Any, table: Variants | None = None, where: str = "recipe") -> Self:
        """Create a section from JSON values; missing fields have the dataclass's defaults.

        A variant of the `table` is chosen by its `name`; `where` is the place in the recipe, for errors.

        Raises:
            RecipeError: invalid values or unknown fields.
        """
        content = _mapping(content, where)
        chosen = variant(table, content.pop("name", ""), where) if table else cls
        fields = fields_of(chosen)
        if unknown := sorted(map(str, content.keys() - fields)):
            raise UnknownFieldError(where, unknown, list(fields))
        for name, value in content.items():
            below = fields[name].metadata
            if "table" in below:
                content[name] = below["section"].made(value, below["table"], name)
        return chosen(**content)


def section(default: Any, table: Variants | None = None) -> Any:
    """A field with a section: `default`, or another of the table."""
    return dataclasses.field(default=default, metadata={"section": type(default), "table": table})


def variant(table: Variants, name: Any, where: str) -> type[Any]:
    """The section with a name in a table."""
    check_choice(where, name, table, UnknownVariantError)
    return table[name]


def check_choice(name: str, value: Any, choices: Iterable[Any], error: type[Exception] = RecipeError) -> None:
    """Raise an error unless the value of a field or argument is one of the choices."""
    choices = tuple(choices)
    if value not in choices:
        raise error(f"{name}={value!r} is unknown; choose one of: {', '.join(map(repr, choices))}.")


def whole(name: str, value: Any, least: int, error: type[Exception] = RecipeError) -> int:
    """The whole number of an argument, of Python or NumPy; an error if it is not whole, or less than the least."""
    with suppress(TypeError):
        if not isinstance(value, bool) and (number := operator.index(value)) >= least:
            return number
    raise error(f"{name}={value!r}: a whole number of at least {least} is needed.")


def fields_of(made: type[Section]) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a section by name."""
    return {field.name: field for field in dataclasses.fields(typing.cast(Any, made))}


def places(made: type[Section], content: Content, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all fields of a section with this content, sections before their fields."""
    for name, field in fields_of(made).items():
        path = (*at, name)
        yield path
        if "table" in field.metadata:
            yield from places(_class_of(field, content[name]), content[name], path)


def variants_with(made: type[Section], content: Content, name: str) -> Iterator[tuple[str, str]]:
    """The sections, and their variants, that have a field with this name."""
    for own, field in fields_of(made).items():
        if "table" in field.metadata:
            yield from variants_with(_class_of(field, content[own]), content[own], name)
            for variant_name, other in (field.metadata["table"] or {}).items():
                if name in fields_of(other):
                    yield own, variant_name


def choose(made: type[Section], content: Content, path: tuple[str, ...], value: Any) -> None:
    """Change the field at a path, in place; another variant keeps common fields."""
    name, *below = path
    if name not in (fields := fields_of(made)):
        raise UnknownFieldError("a recipe", [name], list(fields))
    field = fields[name]
    if "table" not in field.metadata:
        content[name] = value
    elif below:
        choose(_class_of(field, content[name]), content[name], tuple(below), value)
    elif isinstance(value, Section):
        content[name] = value.to_json()
    else:
        table, given = field.metadata["table"], value
        if table:
            given = (
                {"name": value} if isinstance(value, str) else {"name": content[name]["name"]} | _mapping(value, name)
            )
            defaults = variant(table, given.pop("name"), name)().to_json()
            content[name] = defaults | {k: v for k, v in content[name].items() if k in defaults and k != "name"}
        for inner, found in _mapping(given, name).items():
            choose(_class_of(field, content[name]), content[name], (inner,), found)


def _class_of(field: Any, content: Content) -> type[Any]:
    table = field.metadata["table"]
    return variant(table, content["name"], field.name) if table else field.metadata["section"]


def _checked(name: str, kind: Any, value: Any) -> Any:
    """Convert a value, possibly given as text, to its field's type and check its range."""
    if typing.get_origin(kind) is not Annotated:
        return _typed(name, kind, value)
    kind, *limits = typing.get_args(kind)
    value = _typed(name, kind, value)
    for limit in limits:
        if not limit.holds(value):
            raise RecipeError(f"{name} is {value!r}, but {limit.sentence}.")
    return value


_KINDS = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}


def _typed(name: str, kind: Any, value: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin is Literal:
        check_choice(name, value, typing.get_args(kind))
        return value
    if origin is tuple:
        if not isinstance(value, str | list | tuple):
            raise RecipeError(f"{name}={value!r}: a list of values is needed.")
        items = value.split(",") if isinstance(value, str) else value
        items = [item.strip() if isinstance(item, str) else item for item in items]
        return tuple(_checked(name, typing.get_args(kind)[0], item) for item in items if item != "")
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind not in (int, float, str, bool):
        if not isinstance(value, kind):
            raise RecipeError(f"{name}: a section of the kind {kind.__name__} is needed; got {type(value).__name__}.")
        return value
    # Python would read a list as text, and true as 1.
    if kind is not bool and not isinstance(value, bool | list | tuple | dict | None):
        with suppress(TypeError, ValueError, OverflowError):
            made = kind(value)
            if (kind is not int or made == float(value)) and (kind is not float or math.isfinite(made)):
                if kind is float and made and not _LEAST <= abs(made) <= _GREATEST:
                    raise RecipeError(f"{name}={value!r}: 0, or a size from {_LEAST:g} to {_GREATEST:g} is needed.")
                return made
    raise RecipeError(f"{name}={value!r}: {_KINDS[kind]} is needed.")


def _mapping(content: Any, where: str) -> Content:
    if not isinstance(content, Mapping):
        raise RecipeError(f"{where}={content!r}: a JSON object of its fields is needed.")
    return dict(content)
