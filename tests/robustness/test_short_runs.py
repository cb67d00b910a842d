"""A few of the damaged scans and of the kills that the scripts beside this file make by the thousand."""

import json
import os
from collections import Counter
from functools import partial

import pytest

# Marked here, as no processor time of forks is seen where `slow.txt` is written.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")]


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="memory is watched as Linux shows it")
def test_damaged_scans_end_in_a_mask_or_in_an_error_of_the_package(tmp_path):
    from forks import Fork
    from fuzz_scans import work

    files = 300
    worker = Fork(partial(work, 0, seed=1, step=1, end=files), tmp_path / "log")
    assert worker.wait() == 0, worker.log.read_text()
    results = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    assert [result["number"] for result in results] == list(range(files))
    assert not [result for result in results if result["broke"]]
    outcomes = Counter(result["outcome"] for result in results)
    assert outcomes["mask"] > 50 and len(outcomes) > 8


def test_killed_runs_end_as_whole_ones(tmp_path):
    from kill_runs import kill_runs

    # What trains is the same in `train`, which `test_processes.py` kills.
    summary = kill_runs(tmp_path, kills=3, seed=1, without=("train",))
    assert {name: of["equal"] for name, of in summary.items()} == {"prepare": 1, "all": 3, "crossval": 1, "predict": 1}
