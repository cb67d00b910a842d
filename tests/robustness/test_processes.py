"""Two processes on one run folder, and processes that are asked to end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from msseg import TINY, write_msseg
from robustness.run_contents import contents, temporaries

ROOT = Path(__file__).parents[2]
SETTINGS = [word for setting in (*TINY, "epochs=16", "shuffle=every epoch") for word in ("--set", setting)]
# Started in the background, a process inherits that Ctrl-C means nothing to it.
MAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from planar3d import cli
from planar3d.cli import interruptible
with interruptible():
    cli.main(cli.train)
"""


def _start(data, out, program, *words):
    command = [sys.executable, *program, "--data", str(data), "--out", str(out), *SETTINGS, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_for(path, process):
    deadline = time.monotonic() + 200
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists(), process.communicate()


def test_two_processes_that_prepare_one_run_make_one_whole_run(tmp_path):
    data, program = write_msseg(tmp_path / "data"), [str(ROOT / "scripts/prepare_msseg.py")]
    both = [_start(data, tmp_path / "run", program) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    for scan in (tmp_path / "run" / "prepared").glob("*/"):
        assert sorted(os.listdir(scan)) == ["geometry.json", "mask.npy", "voxels.npy"]
        assert np.load(scan / "voxels.npy").shape == (32, 32, 32)
        assert sum(f"prepared {scan.name}" in text for text in said) == 1  # by one of them alone


def test_a_fold_refused_interrupted_and_killed_goes_on_to_the_files_of_an_uninterrupted_one(tmp_path):
    data, out, program = write_msseg(tmp_path / "data"), tmp_path / "run", ["-c", MAIN]
    first = _start(data, out, program, "--fold", "1")
    _wait_for(out / "fold-1", first)
    second = _start(data, out, [str(ROOT / "scripts/train_fold.py")])
    # The second needs seconds to load; the first must still be at it then.
    said = second.communicate()[1]
    assert first.poll() is None, "the first process was too quick for this test"
    assert second.returncode == 2 and f"fold-1 is in use by process {first.pid}" in said
    # Written last of an epoch: from it the next process goes on.
    _wait_for(out / "fold-1" / "backup" / "state.npz", first)

    _interrupt(first, signal.SIGINT, out)
    resumed = _start(data, out, program, "--fold", "1")
    _wait_to_go_on(resumed)
    _interrupt(resumed, signal.SIGTERM, out)
    resumed = _start(data, out, program, "--fold", "1")
    _wait_to_go_on(resumed)
    resumed.kill()
    resumed.communicate()
    assert resumed.returncode == -signal.SIGKILL and not (out / "fold-1" / "training.json").exists()

    last, whole = (_start(data, folder, program, "--fold", "1") for folder in (out, tmp_path / "whole"))
    _wait_to_go_on(last)
    assert [process.communicate() and process.returncode for process in (last, whole)] == [0, 0]
    assert contents(out) == contents(tmp_path / "whole") and not temporaries(out)


def _interrupt(process, number, out):
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == 128 + number and "Run the same command again" in said and "Traceback" not in said
    assert not temporaries(out) and not (out / "fold-1" / "training.json").exists()


def _wait_to_go_on(process):
    lines = [process.stdout.readline() for _ in range(3)]
    assert any("resuming after epoch" in line for line in lines), lines
