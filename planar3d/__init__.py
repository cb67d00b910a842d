"""planar3d: planar 3D transfer learning in Keras 3 (Kolarik et al. 2020).

The public names, listed with their modules in `__init__.pyi`, are loaded when first used, so that `import planar3d` is
instant and loads no TensorFlow.
"""

import ast
import os
from importlib import import_module
from pathlib import Path
from typing import Any

# HDF5 reads this when it is loaded, for what Keras opens. Weights are written under temporary names, so they need no
# locks, and on some network drives locks fail: training ended with its first weights.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

__version__ = "0.1.0"

# The public names by their module.
_HOME = {
    name.name: str(line.module).removeprefix("planar3d.")
    for line in ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8")).body
    if isinstance(line, ast.ImportFrom)
    for name in line.names
}
_ALIASES = {"load_released": "load_weights"}

__all__ = ["__version__", *_HOME, *_ALIASES]


def __getattr__(name: str) -> Any:
    name_at_home = _ALIASES.get(name, name)
    if name_at_home not in _HOME:
        raise AttributeError(f"planar3d has no {name!r}; it has: {', '.join(__all__)}.")
    return getattr(import_module(f"planar3d.{_HOME[name_at_home]}"), name_at_home)


def __dir__() -> list[str]:
    return list(__all__)
