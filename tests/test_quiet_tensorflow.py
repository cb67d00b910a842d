"""The command line loads TensorFlow without its log; what goes wrong meanwhile is shown."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from planar3d.quiet_tensorflow import _has_cuda

ROOT = Path(__file__).parents[1]
QUIETLY = "from planar3d.quiet_tensorflow import quiet_tensorflow; quiet_tensorflow(); "
LOUD = 'import os, sys\nos.write(2, b"from C++\\n")\nprint("from Python", file=sys.stderr)\n'


def _run(code, folder=None, closed=False, **environment):
    kept = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    paths = os.pathsep.join(str(path) for path in (folder, ROOT) if path)
    command = [sys.executable, "-c", code]
    if closed:
        command = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code]
    return subprocess.run(
        command,
        cwd=folder or ROOT,
        env={**kept, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def loud(tmp_path):
    """A folder with a `tensorflow` that writes to the standard error stream while it is imported."""
    (tmp_path / "tensorflow.py").write_text(LOUD + "loaded = True\n")
    return tmp_path


def test_what_is_written_while_tensorflow_is_imported_is_withheld_and_nothing_after_it(loud):
    done = _run(QUIETLY + 'import sys, tensorflow; print(tensorflow.loaded); print("later", file=sys.stderr)', loud)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "later\n")


@pytest.mark.parametrize("installed", [False, True])
def test_a_missing_gpu_is_a_complaint_only_where_cuda_is_installed(loud, installed):
    complaint = 'import os\nclass config:\n    list_physical_devices = lambda: os.write(2, b"no CUDA\\n")\n'
    (loud / "tensorflow.py").write_text(complaint)
    if installed:
        (loud / "nvidia_cuda_nvcc_cu12-12.9.0.dist-info").mkdir()
        (loud / "nvidia_cuda_nvcc_cu12-12.9.0.dist-info/METADATA").write_text("Name: nvidia-cuda-nvcc-cu12\n")
    elif _has_cuda():
        pytest.skip("this machine has CUDA")
    # TensorFlow complains the first time only.
    once = "tensorflow.config.list_physical_devices = print; " if not installed else ""
    done = _run(QUIETLY + f"import tensorflow; {once}tensorflow.config.list_physical_devices()", loud)
    assert (done.returncode, done.stderr) == (0, "no CUDA\n" if installed else "")


@pytest.mark.parametrize("level", ["", "0"])
def test_warnings_from_python_follow_the_same_level(loud, level):
    """What TensorFlow itself has of this is in the test of a command below."""
    (loud / "tensorflow.py").write_text("import logging\n")
    warns = 'import tensorflow; tensorflow.logging.getLogger("tensorflow").warning("traced again")'
    done = _run(QUIETLY + warns, loud, **({"TF_CPP_MIN_LOG_LEVEL": level} if level else {}))
    assert ("traced again" in done.stderr) == bool(level)


def test_who_sets_the_level_sees_everything(loud):
    done = _run(QUIETLY + "import tensorflow", loud, TF_CPP_MIN_LOG_LEVEL="0")
    assert sorted(done.stderr.splitlines()) == ["from C++", "from Python"]


@pytest.mark.parametrize("level", [{}, {"TF_CPP_MIN_LOG_LEVEL": "2"}])
def test_no_garbage_is_collected_while_tensorflow_is_imported(loud, level):
    (loud / "tensorflow.py").write_text("import gc\ncollects = gc.isenabled()\n")
    done = _run(QUIETLY + "import gc, tensorflow; print(tensorflow.collects, gc.isenabled())", loud, **level)
    assert done.stdout == "False True\n"


@pytest.mark.parametrize("package", ["keras", "tensorflow"])
def test_what_keras_would_use_if_it_is_installed_is_not_imported_with_it_but_by_others(tmp_path, package):
    """Data frames, pictures and scikit-learn took a third of the time in which a command that trains begins."""
    unused = ("matplotlib", "pandas", "sklearn")
    for name in unused:
        (tmp_path / f"{name}.py").touch()
    tries = "".join(f"try: import {name}\nexcept ImportError: {name} = None\n" for name in unused)
    elsewhere = "import threading\nthread = threading.Thread(target=__import__, args=['pandas'])\n"
    asked = f"import importlib.util\nplaces = [importlib.util.find_spec(name).origin for name in {unused}]\n"
    (tmp_path / f"{package}.py").write_text(f"{asked}{tries}{elsewhere}thread.start()\nthread.join()\n")
    places = [str(tmp_path / f"{name}.py") for name in unused]
    found = f"x.places == {places}, [x.pandas, x.sklearn, x.matplotlib, *sorted({set(unused)} & sys.modules.keys())]"
    done = _run(QUIETLY + f"import sys, {package} as x; print({found}); import matplotlib, pandas, sklearn", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True [None, None, None, 'pandas']\n", "")


def test_a_tensorflow_that_fails_is_shown_with_what_it_wrote(loud):
    (loud / "tensorflow.py").write_text(LOUD + 'raise ImportError("no such library")\n')
    done = _run(QUIETLY + "import tensorflow", loud)
    assert done.returncode == 1
    assert "from C++" in done.stderr and "from Python" in done.stderr and "no such library" in done.stderr


def test_without_tensorflow_the_import_fails_as_ever(tmp_path):
    done = _run(QUIETLY + "import sys; sys.path[:] = []; import tensorflow", tmp_path)
    assert done.returncode == 1 and "No module named 'tensorflow'" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_a_closed_stream_is_no_problem(loud):
    (loud / "tensorflow.py").write_text("loaded = True\n")
    done = _run(QUIETLY + "import tensorflow; print(tensorflow.loaded)", loud, closed=True)
    assert (done.returncode, done.stdout) == (0, "True\n")


@pytest.mark.parametrize("call", ["dup2", "fdopen"])
def test_an_interrupt_while_the_stream_is_replaced_neither_loses_it_nor_leaves_it_open(call):
    interrupted = f"""
import os
from planar3d.quiet_tensorflow import withheld_stderr

def interrupt(*given):
    os.{call} = real
    kept.append(real(*given))
    raise KeyboardInterrupt

real, kept, free = os.{call}, [], os.dup(1)
os.close(free)
os.{call} = interrupt
try:
    with withheld_stderr():
        pass
except KeyboardInterrupt:
    kept.clear()
    os.write(2, b"after")
print(os.dup(1) - free)
"""
    done = _run(interrupted)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "after")


@pytest.mark.skipif(_has_cuda(), reason="whoever installed CUDA is told if it does not work")
def test_a_command_with_tensorflow_itself_its_warnings_and_bf16_show_nothing_on_the_standard_error_stream():
    pytest.importorskip("tensorflow")
    # A processor without bf16 complains at the first arithmetic in it, unless quiet_tensorflow came before.
    done = _run(
        "import sys; sys.argv[1:] = ['info', '--network', 'planar-resunet', '--size', '32']\n"
        "from planar3d.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    import tensorflow as tf\n"
        "    x = tf.ones((2, 2), tf.bfloat16)\n"
        "    print(tf.linalg.matmul(x, x)[0, 0].numpy() == 2)\n"
        "    tf.get_logger().warning('traced again')\n"
    )
    assert done.returncode == 0 and "block1_conv1" in done.stdout and done.stdout.endswith("True\n")
    assert done.stderr == ""
