"""The versions and the machine of a result."""

import functools
import importlib.metadata
import os
import platform
import re
from contextlib import suppress
from pathlib import Path

from planar3d import __version__
from planar3d.wording import counted

_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "torch", "jax", "openvino", "numpy", "scipy", "nibabel", "h5py")
# Instructions for bf16 from the best on, by Linux' names, and the values of ONEDNN_MAX_CPU_ISA that allow them.
_BF16 = {"amx_bf16": "^$|ALL|DEFAULT|AMX", "avx512_bf16": "^$|ALL|DEFAULT|AMX|BF16|FP16|AVX10"}
# Device files of NVIDIA, of AMD, and of the Windows Subsystem for Linux.
_GPU_DRIVERS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def versions(*others: str) -> dict[str, str]:
    """Versions of this package, Python and installed packages."""
    found = {package: _installed(package) for package in (*_PACKAGES, *others)}
    own = {"planar3d": __version__, "python": platform.python_version()}
    return own | {package: version for package, version in found.items() if version}


@functools.cache
def machine() -> str:
    """System, processor and cores, in one line."""
    return f"{platform.system()} {platform.machine()}, {processor()}, {counted(os.cpu_count() or 1, 'core')}"


def describe() -> str:
    """Versions and machine in one line, for a log."""
    return f"{', '.join(f'{name} {version}' for name, version in versions().items())}; {machine()}"


def may_have_gpu() -> bool:
    """Whether a backend might have a GPU; without a driver it has none, with one only the backend can tell."""
    return platform.system() != "Linux" or any(map(os.path.exists, _GPU_DRIVERS))


def bf16_instructions() -> str:
    """The best bf16 instructions, by Linux' names, that the processor has and oneDNN may use; "none" if unknown."""
    table = Path("/proc/cpuinfo")
    found = set(table.read_text().split()) if table.is_file() else set()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return next((name for name, allowed in _BF16.items() if name in found and re.search(allowed, limit)), "none")


def processor() -> str:
    """The processor's name."""
    table = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", table.read_text()) if table.is_file() else None
    return named.group(1).strip() if named else platform.processor() or "unknown processor"


@functools.cache  # a search of all folders of packages, which may lie on a file server
def _installed(package: str) -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None
