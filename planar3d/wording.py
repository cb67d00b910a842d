"""Counts in sentences."""

from collections.abc import Sized


def counted(number: "int | Sized", noun: str) -> str:
    """A number, or the length of a collection, with its noun: 1 scan, 3 scans."""
    count = number if isinstance(number, int) else len(number)
    return f"{count} {noun if count == 1 else f'{noun}s'}"
