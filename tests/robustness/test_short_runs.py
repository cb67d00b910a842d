"""A few of the damaged scans and of the kills that the scripts beside this file make by the thousand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _run(script, *words):
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(
        [sys.executable, str(HERE / script), *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="memory is watched as Linux shows it")
def test_damaged_scans_end_in_a_mask_or_in_an_error_of_the_package(tmp_path):
    _run("fuzz_scans.py", "--files", 300, "--seed", 1, "--workers", 1, "--out", tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["files"] == 300 and summary["broke"] == 0
    assert summary["outcomes"]["mask"] > 50 and len(summary["outcomes"]) > 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_killed_runs_end_as_whole_ones(tmp_path):
    from kill_runs import kill_runs

    summary = kill_runs(tmp_path, kills=4, seed=1)
    assert {name: of["equal"] for name, of in summary.items()} == {
        "prepare": 1,
        "all": 4,
        "train": 1,
        "crossval": 1,
        "predict": 1,
    }
