"""A page in one file: what the reports of scans and cohorts share, and the policy that keeps it to itself."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from planar3d.extras import extra
from planar3d.files import write_text

# Parts of a record that say under which conditions a mask was made, in the order in which they are shown.
CONDITIONS = {
    "scan": "Scan",
    "model": "Model",
    "asked": "Asked for",
    "how": "Computation",
    "recipe": "Recipe",
    "versions": "Versions",
}


class Bar(NamedTuple):
    """A bar of a histogram: what it counts, how many, and its height relative to the highest."""

    label: str
    number: int
    height: float


def write_page(path: str | Path, template: str, scripts: Sequence[str], **content: Any) -> Path:
    """Fill a template of this folder, with its style and scripts inside, and write the page whole or not at all.

    The page's policy allows exactly these scripts and this style, by digest, and no network: whatever a file smuggled
    into the page's text would not run.
    """
    filled = page_template(template)
    from markupsafe import Markup  # jinja2's own

    style, script = _text("page.css"), "\n".join(map(_text, scripts))
    page = filled.render(
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'",
        **content,
    )
    write_text(path, page)
    return Path(path)


def page_template(name: str) -> Any:
    """A jinja2 template of this folder, in which what is filled in is text and nothing may be missing."""
    with extra("study"):
        import jinja2
    loader = jinja2.PackageLoader("planar3d.study", ".")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(name)


def as_text(content: Mapping[str, Any]) -> dict[str, str]:
    """Values as a table shows them: texts, and lists of texts, as they are; nothing as a dash; all others as JSON."""
    return {key: _as_text(value) for key, value in content.items()}


def _as_text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return " ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def histogram(values: Sequence[float], limits: Sequence[float], labels: Sequence[str]) -> list[Bar]:
    """Count values below the first limit, from each limit to the next, and from the last; one label each."""
    counts = np.bincount(np.searchsorted(limits, values, side="right"), minlength=len(labels))
    highest = max(counts.max(), 1)
    return [Bar(label, int(n), float(n / highest)) for label, n in zip(labels, counts, strict=True)]


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def picture_url(png: bytes) -> str:
    """A PNG as a data URL, so that a page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
