"""The versions and the machine of a result."""

import importlib.metadata

import numpy as np

from planar3d.environment import versions


def test_packages_are_looked_up_once_for_all_scans(monkeypatch):
    first = versions("pytest")
    assert (
        first["numpy"] == np.__version__ and "pytest" in first and "no-such-package" not in versions("no-such-package")
    )

    def refuse(package):
        raise AssertionError(f"{package} was looked up again")

    monkeypatch.setattr(importlib.metadata, "version", refuse)
    again = versions("pytest", "no-such-package")
    assert again == first and again is not first
