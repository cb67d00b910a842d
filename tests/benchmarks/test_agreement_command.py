"""The command of the page on publishing ends like the package's own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(folder, *arguments):
    command = [sys.executable, str(ROOT / "benchmarks/agreement.py"), "--data", "scans.csv", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_bad_input_is_one_sentence(tmp_path):
    done = run(tmp_path, "--model", "nosuch.h5")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: nosuch.h5 does not exist") and len(done.stderr.splitlines()) == 1
