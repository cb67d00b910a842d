"""Packages that only some users need, and that an extra of the installation brings."""

from collections.abc import Iterator
from contextlib import contextmanager

from planar3d.errors import Planar3DError


@contextmanager
def study_extra() -> Iterator[None]:
    """Turn an import that fails inside the block into a sentence that says what to install."""
    try:
        yield
    except ImportError as error:
        raise Planar3DError(
            f"Figures, reports and the phantom need {error.name}, which is not installed. "
            "Install it with: pip install 'planar3d[study]'"
        ) from None
