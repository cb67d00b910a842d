"""Files are written whole or not at all."""

import os

import pytest

from planar3d.errors import RunError
from planar3d.files import read_json, write_json, written_beside


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError), written_beside(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_written_file_can_be_read_by_others(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"a": 1})
    assert read_json(tmp_path / "new" / "a.json") == {"a": 1}
    (tmp_path / "plain").touch()
    assert (tmp_path / "new" / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(RunError, match=r"a\.json is not readable"):
        read_json(tmp_path / "a.json")
