"""The reference of the public Python names, which mkdocstrings fills from their docstrings."""

from itertools import groupby

import planar3d
from planar3d import _ALIASES, _HOME

# The stages of the data's way, in its order; what is above them has no stage.
_TITLES = {
    "recipes": "Recipes",
    "transfer": "Transfer",
    "networks": "Networks",
    "conversion": "Conversion",
    "scans": "Scans",
    "inference": "Inference",
    "study": "Studies",
    "evaluation": "Evaluation",
}


def name_reference() -> str:
    """A page of Markdown with every public name of the package, by stage."""
    by_stage = sorted(_HOME, key=lambda name: list(_TITLES).index(_stage(name)))
    parts = [
        "# Python",
        "```python\nimport planar3d as p3\n```",
        f"The public names of planar3d {planar3d.__version__}, generated from their docstrings. Names are loaded on "
        "first use; importing the package does not import TensorFlow.",
    ]
    for stage, names in groupby(by_stage, key=_stage):
        parts += [f"## {_TITLES[stage]}", *map(_entry, names)]
    return "\n\n".join(parts) + "\n"


def _stage(name: str) -> str:
    return _HOME[name].partition(".")[0]


def _entry(name: str) -> str:
    if name.isupper():
        return f"`{name}`: the recipe `{name.lower()}`, with the values in [Recipes](recipes.md#values)."
    lines = [f"::: planar3d.{_HOME[name]}.{name}", f"    options: {{heading: planar3d.{name}, toc_label: {name}}}"]
    lines += [f"\n`{alias}` is another name of `{name}`." for alias, meant in _ALIASES.items() if meant == name]
    return "\n".join(lines)
