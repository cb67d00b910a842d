"""An HTML page in one file: common parts of reports, and its content security policy."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from planar3d.extras import extra
from planar3d.files import write_text

# Parts of a record with the conditions of a mask, in order of display.
CONDITIONS = {
    "scan": "Scan",
    "model": "Model",
    "requested": "Requested",
    "how": "Computation",
    "recipe": "Recipe",
    "versions": "Versions",
}
Bars = list[tuple[str, int, float]]  # of a histogram: their labels, counts, and heights relative to the highest


def write_page(path: str | Path, template: str, scripts: Sequence[str], **content: Any) -> Path:
    """Fill a template of this folder, including style and scripts, and write the page atomically.

    The page's policy allows only these scripts and this style, by digest, and no network: code injected by a file
    would not run.
    """
    with extra("study"):
        import jinja2
        from markupsafe import Markup  # a dependency of jinja2

    style, script = _text("page.css"), "\n".join(map(_text, scripts))
    loader = jinja2.PackageLoader("planar3d.study", ".")
    # Values are escaped, and missing ones are errors.
    templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    page = templates.get_template(template).render(
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'",
        **content,
    )
    write_text(path, page)
    return Path(path)


def as_text(content: Mapping[str, Any]) -> dict[str, str]:
    """Values for a table: texts and lists of texts unchanged; None as a dash; all others as JSON."""
    return {key: _as_text(value) for key, value in content.items()}


def _as_text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return " ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def histogram(values: Sequence[float], limits: Sequence[float], labels: Sequence[str]) -> Bars:
    """Count values below the first limit, between limits, and from the last limit on, with one label each."""
    counts = np.bincount(np.searchsorted(limits, values, side="right"), minlength=len(labels))
    highest = max(counts.max(), 1)
    return [(label, int(n), float(n / highest)) for label, n in zip(labels, counts, strict=True)]


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def picture_url(png: bytes) -> str:
    """A PNG as a data URL, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
