"""Figures that depend neither on displays nor on settings of matplotlib."""

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from planar3d.extras import extra
from planar3d.files import written_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 120
_settings = RLock()  # those of matplotlib are a process's


@contextmanager
def default_style() -> Iterator[None]:
    """Draw with matplotlib's defaults: the user's `image.origin: lower`, for instance, would turn slices over."""
    with extra("study"):
        from matplotlib import style
    with _settings, style.context("default"):
        yield


def canvas(width: float, height: float) -> "Figure":
    """Return an empty figure of this size in inches, independent of displays."""
    with extra("study"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), dpi=_DPI)


def legend_below(
    figure: "Figure", entries: Iterable[tuple[str, Mapping[str, Any]]], abreast: int = 2, colour: str = "black"
) -> None:
    """Add a legend at the bottom, so many entries in a row: labels, and the properties of their lines."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], label=label, **style) for label, style in entries]
    where: dict[str, Any] = {"loc": "lower center", "ncols": min(abreast, len(lines))}
    for text in figure.legend(handles=lines, **where, frameon=False, labelcolor=colour, fontsize=10).get_texts():
        text.set_parse_math(False)


def save(figure: "Figure", path: str | Path) -> Path:
    """Write a figure as PNG, atomically."""
    with written_beside(path) as temporary:
        temporary.write_bytes(png_of(figure))
    return Path(path)


def png_of(figure: "Figure") -> bytes:
    """A figure as PNG without matplotlib's version inside, so that equal pictures are equal files."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
