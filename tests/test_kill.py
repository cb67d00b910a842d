"""A process killed in the middle of training leaves a folder from which the same command goes on exactly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
from msseg import TINY, write_msseg

ROOT = Path(__file__).parents[1]
SETTINGS = [word for setting in (*TINY, "epochs=8", "shuffle=every epoch") for word in ("--set", setting)]


def _command(data, out):
    return [sys.executable, str(ROOT / "scripts/train_fold.py"), "--data", str(data), "--out", str(out), *SETTINGS]


def _weights(folder):
    arrays = {}
    with h5py.File(folder / "best.weights.h5", "r") as file:
        file.visititems(lambda n, item: arrays.update({n: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def test_a_killed_process_goes_on_to_the_weights_of_an_uninterrupted_one(tmp_path):
    data = write_msseg(tmp_path / "data")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(_command(data, tmp_path / "whole"), env=environment, check=True, capture_output=True)

    backup = tmp_path / "killed/fold-1/backup/state.npz"
    with subprocess.Popen(_command(data, tmp_path / "killed"), env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not backup.is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert backup.is_file() and not (tmp_path / "killed/fold-1/training.json").exists()
    done = subprocess.run(
        _command(data, tmp_path / "killed"), env=environment, check=True, capture_output=True, text=True
    )
    assert "going on after epoch" in done.stdout

    whole, resumed = _weights(tmp_path / "whole/fold-1"), _weights(tmp_path / "killed/fold-1")
    assert whole.keys() == resumed.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)
    history = [(tmp_path / run / "fold-1/history.csv").read_text().splitlines() for run in ("whole", "killed")]
    assert [line.rsplit(",", 1)[0] for line in history[0]] == [line.rsplit(",", 1)[0] for line in history[1]]
