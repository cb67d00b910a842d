"""Recipes of format 1, which were flat, in weights files and run folders of earlier versions."""

from typing import Any

from planar3d.networks.settings import NETWORKS
from planar3d.scans.preparation import PREPARATIONS
from planar3d.scans.targets import Binary
from planar3d.scans.tiles import DepthWindows
from planar3d.sections import Content, UnknownFieldError, fields_of, variant
from planar3d.training.losses import BceMinusDice
from planar3d.training.schedules import SCHEDULES, InverseDecay
from planar3d.training.settings import SAMPLINGS, Adam, Training

_PREPARATIONS = {"cube": "sagittal-cube", "slices": "axial-slices"}
_CHOICES: dict[str, Any] = {"sampling": SAMPLINGS, "network": NETWORKS, "schedule": SCHEDULES}
# Values of missing fields that differ from the section's default: the behaviour before the field existed.
_MISSING = {
    "grid": "cube",
    "sampling": "windows",
    "network": "planar-resunet",
    "schedule": "decay",
    "resampling": "scipy",
}


def upgraded(content: Content) -> Content:
    """The sections of a flat recipe, without fields that its choices do not use.

    Raises:
        RecipeError: a field is not in format 1, or a choice of a section is unknown.
    """
    fields: dict[str, Any] = {**_MISSING, **{name: value for name, value in content.items() if name != "format"}}
    if unknown := sorted(map(str, fields.keys() - _known())):
        raise UnknownFieldError("a recipe of format 1", unknown, sorted(_known()))
    grid = fields["grid"]
    prepared = variant(PREPARATIONS, _PREPARATIONS.get(grid, grid) if isinstance(grid, str) else grid, "grid")
    samples, network, schedule = (variant(table, fields[name], name) for name, table in _CHOICES.items())
    return {
        "name": fields["name"],
        "preparation": _section(prepared, fields),
        "tiles": _section(DepthWindows, fields),
        "network": _section(network, fields),
        "targets": _section(Binary, fields),
        "training": _section(Training, fields)
        | {
            "samples": _section(samples, fields),
            "loss": _section(BceMinusDice, fields),
            "optimizer": _section(Adam, fields),
            "schedule": _section(schedule, fields),
        },
    }


def _section(made: type[Any], fields: Content) -> Content:
    named = {"name": made.name} if made.name else {}
    return named | {name: fields[name] for name in _names(made) if name in fields}


def _names(made: type[Any]) -> set[str]:
    return fields_of(made).keys() - {"samples", "loss", "optimizer", "schedule"}


def _known() -> set[str]:
    alone = (DepthWindows, Binary, Training, BceMinusDice, Adam, InverseDecay)
    sections = (*PREPARATIONS.values(), *NETWORKS.values(), *SAMPLINGS.values(), *alone)
    return {"name", "grid", *_CHOICES}.union(*map(_names, sections))
