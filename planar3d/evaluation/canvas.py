"""Figures that depend neither on displays nor on settings of matplotlib."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

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
