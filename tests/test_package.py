"""Importing the package is instant, and its public names are there."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import planar3d
from planar3d.networks.registry import ARCHITECTURES

# The stages of the data's way. Recipes, and the files above all folders, belong to all of them.
STAGES = ["scans", "phantom", "dicom", "graph", "transfer", "weights", "conversion", "networks", "training"]
STAGES += ["inference", "segmentation", "evaluation", "study", "commands"]
# A weights file builds its network in the precision that it was trained in.
BACKWARDS = {("networks/weights_file.py", "training")}


def test_neither_the_import_nor_help_nor_the_trial_of_a_weights_file_loads_tensorflow_or_scipy():
    heavy = "{'tensorflow', 'keras', 'matplotlib', 'nilearn', 'pandas', 'scipy', 'nibabel'} & set(sys.modules)"
    script = (
        f"import sys, planar3d; assert not {heavy}, {heavy}\n"
        "from typer.testing import CliRunner\nfrom planar3d.cli import app\n"
        f"assert CliRunner().invoke(app, ['--help']).exit_code == 0; assert not {heavy}, {heavy}\n"
        f"import planar3d.transfer.rehearsal; assert not {heavy}, {heavy}"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_module_runs_as_the_command_does():
    done = subprocess.run([sys.executable, "-m", "planar3d", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith(f"planar3d {planar3d.__version__},")


def test_every_public_name_is_found():
    for name in planar3d.__all__:
        assert getattr(planar3d, name) is not None
    assert planar3d.load_released is planar3d.load_weights
    assert {network.build.__name__ for network in ARCHITECTURES.values()} < set(planar3d.__all__)


def test_type_checkers_see_the_public_names():
    """They export only names that a stub imports under an alias, if the same."""
    tree = ast.parse(Path(planar3d.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    names = [name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names]
    assert [name.asname for name in names] == [name.name for name in names] == [*planar3d._HOME]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match="PlanarResUNet"):
        _ = planar3d.PlanarResUnet


def test_a_file_imports_from_its_own_stage_or_from_stages_before_it():
    root, found = Path(planar3d.__file__).parent, set()
    assert {path.parent.name for path in root.glob("*/__init__.py")} <= {*STAGES, "recipes"}
    for path in (path for stage in STAGES for path in (root / stage).rglob("*.py")):
        place = path.relative_to(root)
        taken = set(re.findall(r"^\s*(?:from|import) planar3d\.(\w+)\.", path.read_text(), re.MULTILINE)) & set(STAGES)
        found |= {(place.as_posix(), stage) for stage in taken if STAGES.index(stage) > STAGES.index(place.parts[0])}
    assert found == BACKWARDS
