"""The modules of an experiment, which is a folder of scripts and no package."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@contextmanager
def modules_of(folder: str, *names: str) -> Iterator[list[ModuleType]]:
    """Import the scripts of an experiment by name; what they import of each other goes with them afterwards."""
    path = EXPERIMENTS / folder
    scripts = [script.stem for script in path.glob("*.py")]
    # A module or folder of the tests may have the name of a script.
    others = {name: sys.modules.pop(name) for name in scripts if name in sys.modules}
    sys.path.insert(0, str(path))
    try:
        yield [import_module(name) for name in names]
    finally:
        sys.path.remove(str(path))
        for name in scripts:
            sys.modules.pop(name, None)
        sys.modules.update(others)
