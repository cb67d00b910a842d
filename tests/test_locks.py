"""A folder belongs to one process at a time, and to none that is dead."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from planar3d import locks
from planar3d.errors import RunError
from planar3d.locks import CLAIM, Claim, Holder, alone_with, holder_of, locked, take

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
    with (
        pytest.raises(
            RunError, match=rf"run is in use by process {process.pid} on \S+ since 20.*; training must wait\."
        ),
        locked(tmp_path / "run", "training"),
    ):
        pass


def test_a_killed_process_holds_nothing(tmp_path, hold):
    process = hold(tmp_path)
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still listed among the processes
    with locked(tmp_path, "training"):
        pass
    assert not any(tmp_path.iterdir())


def test_who_waits_says_so_once_and_gets_the_folder(tmp_path, hold):
    process, said = hold(tmp_path, 0.5), []
    with locked(tmp_path, "preparing", wait=said.append):
        assert process.poll() is not None or process.wait(1) == 0
    assert len(said) == 1 and "preparing must wait" in said[0]


def test_files_in_a_folder_of_others_are_written_by_one_process_at_a_time(tmp_path):
    said, path, other = [], tmp_path / "scores.csv", tmp_path / ".writing-12345678-mask.nii.gz"
    other.touch()

    def write():
        with alone_with(path, wait=said.append):
            return sorted(os.listdir(tmp_path))

    with ThreadPoolExecutor(1) as thread, alone_with(path):
        (tmp_path / ".writing-12345678-scores.csv").touch()  # by a process that was killed
        found = thread.submit(write)
        until = time.monotonic() + 60
        while not said and time.monotonic() < until:
            time.sleep(0.01)
    assert found.result() == [".claim-scores.csv", other.name] and os.listdir(tmp_path) == [other.name]
    (line,) = said
    assert line.startswith(f"{path} is in use by process {os.getpid()}") and line.endswith("; writing must wait")


def test_a_claim_that_does_not_fit_on_the_disk_is_not_left_behind(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as found:
            take(tmp_path / CLAIM)
        assert found.value.filename == str(tmp_path / CLAIM)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [*tmp_path.iterdir()]


INTERRUPTED = """
import json, os, signal, sys, time
from threading import Thread
from planar3d import locks

def interrupted(call):
    once = [signal.SIGINT]

    def slow(*args, **how):  # as of a file server
        result = call(*args, **how)
        if once:
            signal.raise_signal(once.pop())
            time.sleep(0.05)
        return result

    return slow

signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores Ctrl+C
folder, of, name, during = sys.argv[1:]
try:
    if during == "released":
        claim = locks.take(locks.Path(folder, locks.CLAIM))
    setattr(globals()[of], name, interrupted(getattr(globals()[of], name)))
    if during == "made":
        claim = locks.take(locks.Path(folder, locks.CLAIM))
    claim.release()
    sys.exit("it was not interrupted")
except KeyboardInterrupt:
    deadline = time.monotonic() + 10
    while os.listdir(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    sys.exit(bool(os.listdir(folder)))
"""


@pytest.mark.parametrize(
    "of, name, during",
    [
        ("os", "open", "made"),
        ("json", "dumps", "made"),
        ("Thread", "start", "made"),
        ("locks", "read_claim", "released"),
    ],
)
def test_an_interrupt_while_a_claim_is_made_or_released_leaves_none_behind(tmp_path, of, name, during):
    """The next call of the same session waited for this claim without end, or was refused."""
    subprocess.run([sys.executable, "-c", INTERRUPTED, tmp_path, of, name, during], check=True)


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
        assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted([*kept, tmp_path / CLAIM])
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


@pytest.fixture
def foreign(tmp_path):
    """A claim of a process on another host, made some seconds ago."""

    def make(age):
        path = tmp_path / "claim"
        path.write_text(json.dumps(Holder("node7 pid:[4026531836]", 4711, "12", 1.7e9)._asdict()))
        made = time.time() - age
        os.utime(path, (made, made))
        return path

    return make


@pytest.mark.parametrize("clock", [1, -1])  # -1: it was set back since, and the claim is from the future
def test_a_claim_of_another_host_is_taken_over_when_its_signs_of_life_end(foreign, clock):
    claim = take(foreign(clock * (locks.SILENT - 60)))
    assert isinstance(claim, Holder) and str(claim).startswith("process 4711 on node7 since 20")
    path, cleaned = foreign(clock * (locks.SILENT + 60)), []
    claim = take(path, lambda: cleaned.append(path.exists()))
    assert isinstance(claim, Claim) and cleaned == [True]  # while nobody else could have it
    assert holder_of(path).pid == os.getpid()
    claim.release()
    assert not any(path.parent.iterdir())


def test_signs_of_life_are_given(foreign, monkeypatch):
    path = foreign(1e6)
    monkeypatch.setattr(locks, "BEAT", 0.05)
    claim = take(path)
    os.utime(path, (0, 0))
    deadline = time.monotonic() + 5
    while path.stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert time.time() - path.stat().st_mtime < 60
    claim.release()


def test_who_lost_a_claim_does_not_release_that_of_its_successor(foreign):
    path = foreign(1e6)
    lost = take(path)
    path.unlink()
    successor = take(path)
    lost.release()
    assert path.exists()
    successor.release()
    assert not path.exists()


def test_a_claim_that_was_killed_while_it_was_written_is_taken_over_by_its_age(tmp_path):
    path, now = tmp_path / "claim", time.time()
    for age in (0, locks.BEAT):
        path.touch()
        os.utime(path, (now - age, now - age))
        assert isinstance(take(path), Holder)
    os.utime(path, (now - 2 * locks.BEAT - 10, now - 2 * locks.BEAT - 10))  # long before a silent host counts as dead
    take(path).release()
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe{",
        b"[" * 100_000,
        b"[]",
        b'{"host": null, "pid": 1, "born": "2", "since": 1.5}',
        b'{"host": "a", "pid": "1", "born": "2", "since": 1.5}',
        b'{"host": "a", "pid": 1, "born": "2", "since": NaN}',
        b'{"host": "a", "pid": 1, "born": "2", "since": 1e30}',
        f'{{"host": "{locks._host()}", "pid": 1{99:0>30}, "born": "2", "since": 1.5}}'.encode(),
    ],
)
def test_a_damaged_claim_has_only_an_age(tmp_path, content):
    path, now = tmp_path / "claim", time.time()
    path.write_bytes(content)
    assert str(take(path)).startswith("a process since ")
    os.utime(path, (now - 2 * locks.BEAT - 10, now - 2 * locks.BEAT - 10))
    take(path).release()
    assert not path.exists()


def test_one_of_many_takes_over_a_dead_claim_also_after_one_died_of_that(foreign):
    path = foreign(1e6)
    path.with_name("claim~").write_text(path.read_text())
    os.utime(path.with_name("claim~"), (0, 0))
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda _: take(path), range(8)))
    claims = [claim for claim in taken if isinstance(claim, Claim)]
    assert len(claims) == 1
    claims[0].release()
    assert not any(path.parent.iterdir())


def test_a_process_of_another_user_that_may_not_be_looked_at_is_alive(tmp_path, monkeypatch):
    path = tmp_path / "claim"
    claim = take(path)
    mine = locks.read_claim(path)
    monkeypatch.setattr(locks, "_born", lambda pid: "")  # as where /proc hides the processes of others
    monkeypatch.setattr(os, "kill", lambda pid, number: (_ for _ in ()).throw(PermissionError()))
    assert holder_of(path) == mine
    claim.release()


def test_claims_are_looked_at_where_nothing_can_be_written(foreign, monkeypatch):
    path = foreign(60)
    monkeypatch.setattr(locks.tempfile, "TemporaryFile", lambda dir: (_ for _ in ()).throw(PermissionError()))
    assert holder_of(path).pid == 4711
    assert holder_of(foreign(locks.SILENT + 60)) is None


def test_who_lost_a_claim_knows_it_and_gives_no_signs_of_life_for_its_successor(foreign, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.05)
    path = foreign(1e6)
    lost = take(path)
    content = path.read_text()
    assert not lost.is_lost()
    path.unlink()
    path.write_text(content.replace(f'"pid": {os.getpid()}', '"pid": 4711'))
    assert lost.is_lost()
    os.utime(path, (0, 0))
    time.sleep(0.3)
    assert path.stat().st_mtime == 0
    lost.release()


def test_who_lost_a_claim_with_its_folder_is_told_so(tmp_path):
    claim = take(tmp_path / "fold-1" / CLAIM)
    (tmp_path / "fold-1").rename(tmp_path / "moved")
    with pytest.raises(RunError, match=r"fold-1 was taken over .* or the output folder was moved or removed\."):
        claim.require()
    claim.release()
