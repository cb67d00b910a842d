"""The versions and the machine that a result was made with."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

from planar3d import __version__
from planar3d.wording import counted

_PACKAGES = (
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "torch",
    "jax",
    "openvino",
    "numpy",
    "scipy",
    "nibabel",
    "h5py",
)


def versions(*others: str) -> dict[str, str]:
    """Versions of this package, Python, the packages it computes with, and others: of those that are installed."""
    found = {"planar3d": __version__, "python": platform.python_version()}
    for package in (*_PACKAGES, *others):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """System, processor and cores, in a line."""
    return f"{platform.system()} {platform.machine()}, {processor()}, {counted(os.cpu_count() or 1, 'core')}"


def describe() -> str:
    """Versions and machine in a line, for a log."""
    return f"{', '.join(f'{name} {version}' for name, version in versions().items())}; {machine()}"


def processor() -> str:
    """The processor's name."""
    table = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", table.read_text()) if table.is_file() else None
    return named.group(1).strip() if named else platform.processor() or "unknown processor"
