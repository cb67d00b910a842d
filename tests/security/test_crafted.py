"""Files made to do harm are refused by a sentence, and nothing in them runs."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from security.crafted import ATTACKS, NEED_TRIAL, hdf5, one_array_often

from planar3d.errors import WeightsError
from planar3d.transfer import published_models
from planar3d.transfer.array_files import read_directly
from planar3d.transfer.arrays import read_arrays
from planar3d.transfer.digests import file_sha256
from planar3d.transfer.published_models import PublishedModel


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name not in NEED_TRIAL])
def test_a_crafted_file_is_refused_and_nothing_in_it_runs(tmp_path, attack):
    if attack.endswith(".onnx"):
        pytest.importorskip("onnx")
    make, sentence = ATTACKS[attack]
    path = tmp_path / "in" / "folders" / attack
    path.parent.mkdir(parents=True)
    make(path)
    with pytest.raises(WeightsError, match=sentence):
        read_directly(path)
    # Neither a mark of code that ran, which would lie beside the file, nor anything that climbed out of an archive.
    assert [p for p in tmp_path.rglob("*") if not p.is_dir()] == [path]


def test_a_file_that_would_fill_the_memory_is_stopped_in_another_process(tmp_path):
    hdf5(tmp_path / "aliases.h5", one_array_often)
    with pytest.raises(WeightsError, match=r"aliases\.h5 cannot be read as weights"):
        read_arrays(tmp_path / "aliases.h5")


def test_an_honest_file_passes_the_trial_and_is_tried_again_once_it_changed(tmp_path):
    path = tmp_path / "honest.weights.h5"
    hdf5(path)
    assert list(read_arrays(path)) == ["block1_conv1/kernel"]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="cannot be read"):
        read_arrays(path)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes are stopped by a signal")
def test_the_time_in_which_a_job_is_suspended_is_not_the_trials(tmp_path):
    hdf5(tmp_path / "honest.h5")
    program = (
        "import pathlib, sys, planar3d.transfer.rehearsal as trial; trial._PATIENCE = 1;"
        "sys.addaudithook(lambda event, _: event == 'subprocess.Popen' and print(trial._SECONDS, flush=True));"
        "trial.rehearse(pathlib.Path('honest.h5'))"
    )
    command, here = [sys.executable, "-c", program], os.pathsep.join(sys.path)
    environment = os.environ | {"PYTHONPATH": here}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, start_new_session=True
    ) as job:
        limit = int(job.stdout.readline())
        time.sleep(0.1)
        os.killpg(job.pid, signal.SIGSTOP)
        time.sleep(limit + 1)
        os.killpg(job.pid, signal.SIGCONT)
        assert job.wait() == 0


def test_mutated_files_of_every_format_end_in_arrays_or_in_an_error(tmp_path):
    script = Path(__file__).with_name("fuzz_weights.py")
    done = subprocess.run([sys.executable, script, "--files", "15"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert re.search(r"\b[1-9]\d* refused\b", done.stdout) and re.search(r"\b[1-9]\d* arrays\b", done.stdout)


def test_a_published_file_needs_no_trial(tmp_path, monkeypatch):
    path = tmp_path / "published.weights.h5"
    hdf5(path)
    line = PublishedModel(path.name, file_sha256(path), path.stat().st_size, "CC BY 4.0")
    monkeypatch.setattr(published_models, "published_models", lambda: {"published": line})
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it was tried"))
    assert list(read_arrays(path)) == ["block1_conv1/kernel"]
