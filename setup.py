"""Puts the published models into the package; all else of the build is in pyproject.toml."""

import json
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

TABLE = Path("planar3d/transfer/published_models.json")


class BuildWithModels(build_py):
    """Copies the weights that the table of published models names to `planar3d/weights/`, so that they load by name."""

    def run(self) -> None:
        """Build the package, then copy."""
        super().run()
        for source, target in self._models().items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files that are built."""
        return [*super().get_outputs(include_bytecode), *map(str, self._models().values())]

    def _models(self) -> dict[Path, Path]:
        if self.editable_mode:  # they are found in the checkout
            return {}
        lines = json.loads(TABLE.read_text(encoding="utf-8")).values()
        files = [line["file"] for line in lines if line["sha256"] and line.get("installed", True)]
        return {Path("weights", file): Path(self.build_lib, "planar3d", "weights", file) for file in files}


setup(cmdclass={"build_py": BuildWithModels})
