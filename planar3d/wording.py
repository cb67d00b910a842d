"""Numbers, names and lists in text."""

import math
import unicodedata
from collections.abc import Iterable, Sized


def counted(number: "int | Sized", noun: str) -> str:
    """A number, or the length of a collection, with its noun: 1 scan, 3 scans."""
    count = _count(number)
    return f"{count:,} {noun if count == 1 else f'{noun}s'}"


def is_or_are(number: "int | Sized") -> str:
    """The verb of a number of things, or of a collection: 1 is, 3 are."""
    return "is" if _count(number) == 1 else "are"


def has_or_have(number: "int | Sized") -> str:
    """The verb of a number of things, or of a collection: 1 has, 3 have."""
    return "has" if _count(number) == 1 else "have"


def _count(number: "int | Sized") -> int:
    return number if isinstance(number, int) else len(number)


def listed(items: Iterable[object], most: int = 5) -> str:
    """The first items and the number of all others: a, b and 3 more; `none` without items."""
    texts = list(map(str, items))
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more or "none"


def printable(name: str) -> str:
    """A name of a file as text: bytes that are not text are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def composed(text: str) -> str:
    """A text with one sign for each letter with its accents, where there is one."""
    return unicodedata.normalize("NFC", text)


def folded(name: str) -> str:
    """A name as systems compare it that ignore capitals, as Windows does, or how accents are stored, as macOS does."""
    return composed(name).casefold()


def visible(text: str) -> str:
    """A text with its control characters as escapes: those of a file's name or content could control a terminal."""
    is_shown = {char: char in "\n\t" or not unicodedata.category(char).startswith("C") for char in set(text)}
    return "".join(char if is_shown[char] else char.encode("unicode_escape").decode() for char in text)


def rounded(value: float, digits: int) -> str:
    """A number with so many significant digits; from 0.0001 to a million without an exponent: 120, not 1.2e+02."""
    return f"{float(f'{value:.{digits}g}'):g}"


def score_text(value: float, digits: int = 3) -> str:
    """A score in decimals; a dash if it is undefined."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
