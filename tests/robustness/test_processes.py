"""Two processes on one run folder, and processes that are asked to end."""

import os
import signal
import time

import numpy as np
import pytest
from msseg import TINY, write_msseg
from run_contents import contents, temporaries

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
SETTINGS = [word for setting in (*TINY, "epochs=6", "shuffle=every epoch") for word in ("--set", setting)]


@pytest.fixture
def start(tmp_path):
    """Start a command on the same data; each process has a log of its own."""
    from forks import run_command

    data, logs = write_msseg(tmp_path / "data"), []

    def start(name, out, *words):
        logs.append(tmp_path / f"{len(logs)}.log")
        return run_command(name, ["--data", data, "--out", out, *SETTINGS, *words], logs[-1])

    return start


def _wait(process, is_so):
    deadline = time.monotonic() + 200
    while not is_so() and process.exitcode is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_so(), process.log.read_text()


def _wait_to_go_on(process):
    _wait(process, lambda: process.log.exists() and "resuming after epoch" in process.log.read_text())


def test_two_processes_that_prepare_one_run_make_one_whole_run(start, tmp_path):
    both = [start("prepare", tmp_path / "run") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    said = [process.log.read_text() for process in both]
    for scan in (tmp_path / "run" / "prepared").glob("*/"):
        assert sorted(os.listdir(scan)) == ["geometry.json", "mask.npy", "voxels.npy"]
        assert np.load(scan / "voxels.npy").shape == (32, 32, 32, 1)
        assert sum(f"prepared {scan.name}" in text for text in said) == 1  # by one of them alone


def test_a_fold_refused_interrupted_and_killed_goes_on_to_the_files_of_an_uninterrupted_one(start, tmp_path):
    out = tmp_path / "run"
    first = start("train", out, "--fold", "1")
    _wait(first, (out / "fold-1").exists)
    second = start("train", out)
    refused = second.wait()
    assert first.exitcode is None, "the first process was too quick for this test"
    assert refused == 2 and f"fold-1 is in use by process {first.pid}" in second.log.read_text()
    # Written last of an epoch: from it the next process goes on.
    _wait(first, (out / "fold-1" / "backup" / "state.npz").exists)

    _interrupt(first, signal.SIGINT, out)
    resumed = start("train", out, "--fold", "1")
    _wait_to_go_on(resumed)
    _interrupt(resumed, signal.SIGTERM, out)
    resumed = start("train", out, "--fold", "1")
    _wait_to_go_on(resumed)
    resumed.send_signal(signal.SIGKILL)
    assert resumed.wait() == -signal.SIGKILL and not (out / "fold-1" / "training.json").exists()

    last, whole = (start("train", folder, "--fold", "1") for folder in (out, tmp_path / "whole"))
    _wait_to_go_on(last)
    assert [process.wait() for process in (last, whole)] == [0, 0]
    assert contents(out) == contents(tmp_path / "whole") and not temporaries(out)


def _interrupt(process, number, out):
    process.send_signal(number)
    code, said = process.wait(), process.log.read_text()
    assert code == 128 + number and "Run the same command again" in said and "Traceback" not in said
    assert not temporaries(out) and not (out / "fold-1" / "training.json").exists()
