"""Arrays of a run folder, as many as there are scans."""

import errno
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest

from planar3d.errors import RunError
from planar3d.mapped_arrays import map_array


@pytest.mark.parametrize("kept", [0, 5, 60, 200])
def test_a_kept_array_that_was_cut_short_is_named_with_what_to_do(tmp_path, kept):
    path = tmp_path / "01A" / "voxels.npy"
    path.parent.mkdir()
    np.save(path, np.arange(64, dtype=np.float32))
    np.testing.assert_array_equal(map_array(path), np.arange(64))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RunError, match=r"voxels.npy is damaged .*Delete .*01A to create it again"):
        map_array(path)


def test_an_array_is_read_where_the_file_system_maps_no_files(tmp_path, monkeypatch):
    """As drivers of cloud storage; training ended there with “No such device”."""
    np.save(tmp_path / "voxels.npy", np.arange(64, dtype=np.float32))

    def refuse(*how, **more):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", refuse)
    np.testing.assert_array_equal(map_array(tmp_path / "voxels.npy"), np.arange(64))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not limit open files")
@pytest.mark.parametrize(
    ("hard", "most", "expected"),
    [(1000, 1000, "100 arrays"), (64, 64, "too many files are open"), (12000, 10240, "100 arrays")],  # the last: macOS
)
def test_a_cohort_may_have_more_scans_than_files_that_a_process_opens_by_default(tmp_path, hard, most, expected):
    np.save(tmp_path / "voxels.npy", np.arange(64, dtype=np.float32))
    program = f"""
import resource
from pathlib import Path
from planar3d.mapped_arrays import map_array
resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))
given = resource.setrlimit
def setrlimit(kind, limits):
    if limits[0] > {most}:
        raise ValueError("current limit exceeds maximum limit")
    given(kind, limits)
resource.setrlimit = setrlimit
print(len([map_array(Path("voxels.npy")) for _ in range(100)]), "arrays")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert expected in done.stdout + done.stderr


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read every file")
def test_an_array_that_must_not_be_read_is_not_said_to_be_damaged(tmp_path):
    path = tmp_path / "voxels.npy"
    np.save(path, np.arange(64))
    path.chmod(0)
    with pytest.raises(PermissionError):
        map_array(path)


@pytest.mark.parametrize(("place", "byte"), [(5, 1), (6, 9), (9, 0x20), (10, 0x7A), (10, 0x28), (23, 0x55)])
def test_an_array_with_a_damaged_header_is_named(tmp_path, place, byte):
    path = tmp_path / "voxels.npy"
    np.save(path, np.arange(64, dtype=np.float32))
    content = bytearray(path.read_bytes())
    content[place] = byte
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"voxels\.npy is damaged"):
        map_array(path)


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.zeros(3, complex), np.array(["a"])])
def test_an_array_of_no_numbers_is_named(tmp_path, array):
    np.save(tmp_path / "voxels.npy", array)
    with pytest.raises(RunError, match=r"voxels\.npy is damaged \(it has "):
        map_array(tmp_path / "voxels.npy")
