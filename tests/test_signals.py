"""A signal ends a command wherever it arrives, also where Python ignores what is raised."""

import os
import signal
import subprocess
import sys

import pytest

# A run of ten seconds whose first callback lasts until the signal has arrived.
RUN = """
import gc, signal, sys, time, weakref
from planar3d.cli import run_in_sentences

signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores Ctrl-C
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and one started by nohup the end of its terminal

class Cycle:
    def __init__(self):
        self.own = self

def callback(*args):
    print("callback", flush=True)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        time.sleep(0.01)

def run():
    {start}
    gc.collect()
    time.sleep(10)
    print("went on", flush=True)

run_in_sentences(run)
"""
STARTS = {
    "destructor": "Cycle.__del__ = callback; Cycle()",
    "destructor where threads start slowly": (
        "import threading; start = threading.Thread.start; "
        "threading.Thread.start = lambda thread: (start(thread), time.sleep(0.2)); "
        "Cycle.__del__ = callback; Cycle()"
    ),
    "weak reference": "made = Cycle(); seen = weakref.ref(made, callback); del made",
    "ordinary code": "callback()",
    "library that discards all errors": "try: callback()\n    except: pass",
    "failure of one of several scans": (  # which is noted before the next one
        "try:\n        try: callback()\n        except SystemExit: raise ImportError('damaged') from None\n"
        "    except ImportError as error: failed = str(error)"
    ),
    "extension with an error of its own": (  # as of pybind11, of which this is the text, and of Cython
        "try: callback()\n    except SystemExit: raise ImportError('initialization failed')"
    ),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("where", STARTS)
def test_a_signal_ends_a_command_where_python_ignores_errors_too(where, number):
    command = [sys.executable, "-c", RUN.format(start=STARTS[where])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "callback\n"
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == 128 + number and not out, err
    assert err == "Interrupted. Run the same command again to continue.\n"


@pytest.mark.parametrize("reader", ["gone", "closed"])
def test_a_signal_ends_a_command_that_nobody_listens_to(reader):
    command = [sys.executable, "-c", RUN.format(start=STARTS["ordinary code"])]
    if reader == "closed":
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "callback\n"
        process.stderr.close()
        process.send_signal(signal.SIGHUP)
        assert process.stdout.read() == ""
    assert process.returncode == 128 + signal.SIGHUP


def test_other_ignored_errors_are_shown_as_before():
    code = (
        "from planar3d.cli import run_in_sentences\n"
        "class Wrong:\n"
        "    def __del__(self):\n"
        "        raise ValueError('of a destructor')\n"
        "run_in_sentences(lambda: Wrong() and None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "Exception ignored" in done.stderr and "of a destructor" in done.stderr


def test_a_program_that_stops_reading_the_output_ends_a_command_without_a_word():
    code = (
        "from planar3d.cli import run_in_sentences; run_in_sentences(lambda: [print(n, flush=True) for n in range(9)])"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 1 and not done.stderr


@pytest.mark.parametrize("command", ["planar3d.__main__", "planar3d.commands.bids_app"])
def test_an_interrupt_while_the_command_is_imported_shows_no_traceback(tmp_path, command):
    (tmp_path / "typer.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import {command}"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
