"""A faster import of Keras and TensorFlow, without the log lines that none of TensorFlow's settings suppresses."""

import gc
import importlib.metadata
import importlib.util
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

# CUDA's compiler, installed by TensorFlow's extra and-cuda but not needed by PyTorch, and a loaded driver.
_CUDA_PACKAGES = ("nvidia-cuda-nvcc-cu12", "nvidia-cuda-nvcc")
_DRIVER = Path("/proc/driver/nvidia")
# Keras and TensorFlow import them where they are installed, and do without them otherwise; here they get no data frame,
# show no picture and are no estimator of scikit-learn.
_UNUSED = ("matplotlib", "pandas", "sklearn")


def quiet_tensorflow() -> None:
    """Suppress TensorFlow's log below errors, from its import on, unless the environment requests it.

    Without CUDA and a driver, the error about their absence is suppressed too, and so is oneDNN's about missing bf16
    multiplication: both occur once per process, and are triggered here. TensorFlow is not imported here: its first
    import elsewhere is quiet, and that of Keras takes half the time without garbage collection and unused packages.
    """
    # TensorFlow disables oneDNN on processors without AVX-512; only with it is shared inference bit for bit windowed.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    quiet = "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    if quiet:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
        logging.getLogger("tensorflow").setLevel("ERROR")  # or every further fold warns of functions traced again
    if "tensorflow" not in sys.modules and not any(isinstance(finder, _FirstImport) for finder in sys.meta_path):
        sys.meta_path[:0] = [_FirstImport("keras", quiet=False), _FirstImport("tensorflow", quiet)]


class _FirstImport(MetaPathFinder):
    """Finds a package as usual, and loads it quickly; if quiet, it captures the standard error meanwhile."""

    def __init__(self, name: str, quiet: bool) -> None:
        self.name, self.quiet = name, quiet

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_quickly(module: ModuleType) -> None:
                with uncollected(), _Unused(), withheld_stderr() if self.quiet else nullcontext():
                    load(module)
                    if self.quiet and not _has_cuda():
                        with suppress(Exception):  # raised again when devices are needed
                            module.config.list_physical_devices()  # looks for CUDA, once per process
                            number = module.zeros((1, 1), module.bfloat16)
                            module.linalg.matmul(number, number)  # looks for bf16 instructions, once per process

            spec.loader.exec_module = load_quickly  # type: ignore[method-assign]
        return spec


class _Unused(MetaPathFinder):
    """Finds `_UNUSED` as usual, since torch asks where they are, but lets the thread in its block load none."""

    def __enter__(self) -> None:
        self.thread = threading.get_ident()
        sys.meta_path.insert(0, self)

    def __exit__(self, *error: object) -> None:
        sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname in _UNUSED else None
        if spec is None or spec.loader is None or threading.get_ident() != self.thread:
            return None
        spec.loader.create_module = _refuse  # type: ignore[method-assign]
        return spec


def _refuse(spec: ModuleSpec) -> None:
    raise ModuleNotFoundError(f"{spec.name} is not loaded with Keras", name=spec.name)


def _has_cuda() -> bool:
    """Whether CUDA for TensorFlow is installed, so that failures must be reported."""
    packages = (found for name in _CUDA_PACKAGES for found in importlib.metadata.distributions(name=name))
    return _DRIVER.exists() or next(packages, None) is not None


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause Python's garbage collector; what was made meanwhile is not looked at afterwards, since modules stay."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if paused:
            gc.enable()


@contextmanager
def withheld_stderr() -> Iterator[None]:
    """Capture the process's standard error stream, including C++; print it on an exception."""
    try:
        sys.stderr.flush()
        stream = os.fdopen(os.dup(2), "wb", 0)
    except (AttributeError, OSError):  # There is none, as with `2>&-`.
        yield
        return
    with stream, tempfile.TemporaryFile() as kept:
        try:  # from the first, as an interrupt may arrive in between
            os.dup2(kept.fileno(), 2)
            yield
        except BaseException:
            sys.stderr.flush()
            kept.seek(0)
            stream.write(kept.read())
            raise
        finally:
            os.dup2(stream.fileno(), 2)
