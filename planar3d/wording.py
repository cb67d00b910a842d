"""Numbers in text."""

import math
from collections.abc import Sized


def counted(number: "int | Sized", noun: str) -> str:
    """A number, or the length of a collection, with its noun: 1 scan, 3 scans."""
    count = number if isinstance(number, int) else len(number)
    return f"{count} {noun if count == 1 else f'{noun}s'}"


def score_text(value: float, digits: int = 3) -> str:
    """A score in decimals; a dash if it is undefined."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
