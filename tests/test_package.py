"""Importing the package is instant, and its public names are there."""

import subprocess
import sys

import pytest

import planar3d


def test_neither_the_import_nor_help_loads_tensorflow_or_matplotlib():
    heavy = "{'tensorflow', 'keras', 'matplotlib', 'nilearn', 'pandas'} & set(sys.modules)"
    script = (
        f"import sys, planar3d; assert not {heavy}, {heavy}\n"
        "from typer.testing import CliRunner\nfrom planar3d.cli import app\n"
        f"assert CliRunner().invoke(app, ['--help']).exit_code == 0; assert not {heavy}, {heavy}"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_public_name_is_found():
    for name in planar3d.__all__:
        assert getattr(planar3d, name) is not None
    assert planar3d.load_released is planar3d.load_weights


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match="PlanarResUNet"):
        _ = planar3d.PlanarResUnet
