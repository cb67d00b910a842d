"""A folder belongs to one process at a time, and to none that is dead."""

import os
import signal
import subprocess
import sys

import pytest

from planar3d.errors import RunError
from planar3d.locks import locked

HOLD = """
import sys, time
from planar3d.locks import locked
with locked(sys.argv[1], "holding"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def hold(tmp_path):
    """Have another process hold a folder for some seconds; it is returned once it does."""
    held = []

    def start(folder, seconds=60.0):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
        )
        held.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in held:
        process.kill()
        process.communicate()


def test_a_second_process_is_told_who_holds_the_folder(tmp_path, hold):
    process = hold(tmp_path / "run")
    whom = f"process {process.pid}" if os.path.exists("/proc/locks") else "another process"
    with (
        pytest.raises(RunError, match=f"run is in use by {whom}; training there has to wait"),
        locked(tmp_path / "run", "training"),
    ):
        pass


def test_a_killed_process_holds_nothing(tmp_path, hold):
    process = hold(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(tmp_path, "training"):
        pass


def test_who_waits_says_so_once_and_gets_the_folder(tmp_path, hold):
    process, said = hold(tmp_path, 0.5), []
    with locked(tmp_path, "preparing", wait=said.append):
        assert process.poll() is not None or process.wait(1) == 0
    assert len(said) == 1 and "preparing waits" in said[0]


def test_folders_beside_and_inside_a_held_one_are_free(tmp_path, hold):
    hold(tmp_path / "fold-1")
    for folder in (tmp_path, tmp_path / "fold-2", tmp_path / "fold-1" / "predictions"):
        with locked(folder, "training"):
            pass


def test_a_lock_leaves_no_file_and_removes_what_was_half_written(tmp_path):
    (tmp_path / ".writing-abc-voxels.npy").write_bytes(b"half")
    (tmp_path / ".writing-folder").mkdir()
    (tmp_path / ".writing-folder" / "model.onnx").touch()
    (tmp_path / "inner").mkdir()
    kept = [tmp_path / "voxels.npy", tmp_path / ".hidden", tmp_path / "inner" / ".writing-of-others"]
    for path in kept:
        path.touch()
    with locked(tmp_path, "preparing"):
        assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


def test_where_folders_cannot_be_locked_the_work_goes_on(tmp_path, monkeypatch):
    import planar3d.locks

    def refuse(handle, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(planar3d.locks.fcntl, "flock", refuse)
    with locked(tmp_path, "one"), locked(tmp_path, "two"):
        pass
    monkeypatch.setattr(planar3d.locks, "fcntl", None)
    with locked(tmp_path, "one"), locked(tmp_path, "two"):
        pass
