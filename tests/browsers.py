"""The browser that tests open pages in, where one is installed."""

import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium():
    """The path of Chromium's program; without one the test is skipped."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    return program
