"""TensorFlow imported without the lines it logs meanwhile, which no setting of its own withholds."""

import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

# CUDA's compiler, which TensorFlow's extra and-cuda installs and PyTorch does not need, and a driver that is loaded.
_CUDA_PACKAGES = ("nvidia-cuda-nvcc-cu12", "nvidia-cuda-nvcc")
_DRIVER = Path("/proc/driver/nvidia")


def quiet_tensorflow() -> None:
    """Withhold what TensorFlow logs below an error, from its import on, unless the environment asks for it.

    Where neither CUDA nor a driver is installed, the error that there is none is withheld too, and so is oneDNN's that
    this processor does not multiply in bf16: both come once a process, and here. TensorFlow is not imported here:
    whoever does first, does so quietly.
    """
    # TensorFlow leaves oneDNN off on processors without AVX-512; shared inference is bit for bit windowed by it alone.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
        if "tensorflow" not in sys.modules:
            sys.meta_path.insert(0, _QuietImport())


class _QuietImport(MetaPathFinder):
    """Finds TensorFlow as it would be found, and keeps the standard error stream to itself while it is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_quietly(module: ModuleType) -> None:
                with withheld_stderr():
                    load(module)
                    if not _has_cuda():
                        with suppress(Exception):  # comes again where devices are needed
                            module.config.list_physical_devices()  # looks for CUDA, once a process
                            number = module.zeros((1, 1), module.bfloat16)
                            module.linalg.matmul(number, number)  # looks for instructions in bf16, once a process

            spec.loader.exec_module = load_quietly  # type: ignore[method-assign]
        return spec


def _has_cuda() -> bool:
    """Whether somebody has CUDA for TensorFlow here, and must be told if it does not work."""
    packages = (found for name in _CUDA_PACKAGES for found in importlib.metadata.distributions(name=name))
    return _DRIVER.exists() or next(packages, None) is not None


@contextmanager
def withheld_stderr() -> Iterator[None]:
    """Keep what the process, C++ included, writes to its standard error stream; write it after all on an exception."""
    try:
        sys.stderr.flush()
        stream = os.dup(2)
    except (AttributeError, OSError):  # There is none, as with `2>&-`.
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            kept.seek(0)
            os.write(stream, kept.read())
            raise
        finally:
            os.dup2(stream, 2)
            os.close(stream)
