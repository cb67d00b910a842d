"""What the tests share: the folder of real scans and weights, and small scans made on the spot."""

import gc
import gzip
import os
import shutil
import tempfile
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import planar3d.inference  # noqa: F401  # which keeps OpenVINO, also where a test imports it, from reporting its use

TESTS = Path(__file__).parent
SLOW = TESTS / "slow.txt"
# Files of a few tests that take long, the longest first: begun last, one would keep a process after the other ended.
FIRST = (
    "networks/test_contract.py",
    "robustness/test_short_runs.py",
    "training/test_devices.py",
    "test_golden.py",
    "docs/test_notebook.py",
    "study/test_several_targets.py",
    "study/test_reproduce.py",
    "robustness/test_processes.py",
)
MARK_OF_FIXTURE = {
    "chromium": "browser",
    "served": "network",
    "here": "network",
    "two_workers": "network",
    "torch": "torch",
}

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the command line has it: what is bit for bit equal is so by oneDNN, which TensorFlow leaves off without AVX-512.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# What is found out about weights files goes into a cache of the tests; other programs find theirs, such as fonts.
_CACHE = tempfile.TemporaryDirectory(prefix="planar3d-tests-", ignore_cleanup_errors=True)
for _place in Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").glob("*"):
    if _place.name != "planar3d":
        Path(_CACHE.name, _place.name).symlink_to(_place)
os.environ["XDG_CACHE_HOME"] = _CACHE.name


def pytest_addoption(parser):
    parser.addoption(
        "--record-slow",
        type=float,
        metavar="SECONDS",
        help="write to tests/slow.txt which tests and fixtures take more processor time, of the files that are run",
    )


def pytest_configure(config):
    config.option.loadscopereorder = False  # xdist would begin with the files of many tests, see `FIRST`
    gc.disable()  # while modules are imported, of which nothing becomes garbage
    if config.getoption("record_slow"):
        config.pluginmanager.register(SlowTests(config.getoption("record_slow")))


def pytest_collection_modifyitems(items):
    """Mark what `slow.txt` names, `file::test`, or `file::fixture` for all tests that need it; and by fixtures."""
    slow = set(SLOW.read_text().split())
    rank = {TESTS / file: number for number, file in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))
    for item in items:
        file = item.path.relative_to(TESTS).as_posix()
        if slow & {f"{file}::{name}" for name in (item.originalname, *item.fixturenames)}:
            item.add_marker("slow")
        for fixture in MARK_OF_FIXTURE.keys() & set(item.fixturenames):
            item.add_marker(MARK_OF_FIXTURE[fixture])


def pytest_collection_finish():
    """Keep the garbage collector from looking at TensorFlow's half a million objects time and again."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(10_000, *gc.get_threshold()[1:])


class SlowTests:
    """Keeps `slow.txt`: what takes more processor time than a limit, in this process and in those it waited for.

    The parameters of a test count together. With xdist, each worker hands what it measured to the one that writes.
    """

    def __init__(self, limit):
        self.limit, self.spent = limit, Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        with self._timed(request._pyfuncitem, fixturedef.argname):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        with self._timed(item, item.originalname):
            return (yield)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.spent.update(getattr(node, "workeroutput", {}).get("spent", {}))  # a crashed worker has none

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["spent"] = dict(self.spent)
            return
        files = {name.partition("::")[0] for name in self.spent}
        others = {line for line in SLOW.read_text().split() if line.partition("::")[0] not in files}
        found = {name for name, seconds in self.spent.items() if seconds > self.limit}
        SLOW.write_text("\n".join(sorted(others | found)) + "\n")

    @contextmanager
    def _timed(self, item, name):
        begun = _processor_seconds()
        yield
        self.spent[f"{item.path.relative_to(TESTS).as_posix()}::{name}"] += _processor_seconds() - begun


def _processor_seconds():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.fixture
def channels_first():
    """Keras set to build layers with their channels first."""
    import keras

    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


@pytest.fixture
def real_data() -> Path:
    """The folder that holds data/ and weights/; the test is skipped without it."""
    folder = os.environ.get("PLANAR3D_TEST_DATA")
    if not folder or not Path(folder, "data").is_dir():
        pytest.skip("PLANAR3D_TEST_DATA names no folder with data/ and weights/")
    return Path(folder)


@pytest.fixture
def torch():
    """The package torch, which is a large download; `make test-torch` installs it. The test is skipped without it."""
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium's program; without one the test is skipped."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(names)} is installed")
    return program


@pytest.fixture
def write_nifti(tmp_path):
    """Write voxels as a NIfTI file in the test's folder, and return its path."""

    def write(voxels, name="scan.nii.gz", affine=None, **header):
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) if affine is None else affine
        content = nib.Nifti1Image(np.asarray(voxels), affine).to_bytes()
        # nibabel would mend the header on saving, so fields are changed behind its back.
        changed = nib.Nifti1Header(content[:348])
        for field, value in header.items():
            changed[field] = value
        content = changed.binaryblock + content[348:]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


@pytest.fixture
def close_folder(monkeypatch):
    """Make a folder one that cannot be opened; root may open every one, so the refusal is made here."""

    def close(folder):
        def refusing(open_folder):
            def refuse(place):
                if not isinstance(place, int) and Path(place) == folder:
                    raise PermissionError(13, "Permission denied", str(place))
                return open_folder(place)

            return refuse

        for name in ("listdir", "scandir"):
            monkeypatch.setattr(os, name, refusing(getattr(os, name)))

    return close


@pytest.fixture
def gradient_scan(write_nifti):
    """A small scan without symmetry, and its path."""
    rng = np.random.default_rng(0)
    voxels = (np.arange(6 * 7 * 8).reshape(6, 7, 8) + 50 * rng.random((6, 7, 8))).astype(np.float32)
    return write_nifti(voxels), voxels


@pytest.fixture
def with_bf16(monkeypatch):
    """A processor with bf16 instructions, as far as the package is told; all processors compute bf16."""
    monkeypatch.setattr("planar3d.training.precision.bf16_instructions", lambda: "avx512_bf16")


@pytest.fixture
def without_bf16(monkeypatch):
    """A processor without bf16 instructions."""
    monkeypatch.setattr("planar3d.training.precision.bf16_instructions", lambda: "none")


def _untraced():
    """Operation by operation: tracing a network takes longer than a few steps of it."""
    tensorflow = pytest.importorskip("tensorflow")
    tensorflow.config.run_functions_eagerly(True)
    yield
    tensorflow.config.run_functions_eagerly(False)


untraced = pytest.fixture(_untraced)
module_untraced = pytest.fixture(scope="module")(_untraced)


def _of_one_measure(scores):
    return {center: dict([*values.items()][:1]) for center, values in scores.items()}


def _one_box():
    """Box plots of a report show its first measure: all take longer to draw than all else that a small run does."""
    from planar3d.study import report

    draw = report.box_plots
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "box_plots", lambda scores, *more: draw(_of_one_measure(scores), *more))
        yield


one_box = pytest.fixture(_one_box)
module_one_box = pytest.fixture(scope="module")(_one_box)


@pytest.fixture(scope="module")
def module_narrow():
    """Networks of few layers and filters, see `narrow_networks`."""
    from narrow_networks import narrow_networks

    with pytest.MonkeyPatch.context() as patch:
        narrow_networks(patch)
        yield


@pytest.fixture(scope="module")
def built_once():
    """One predictor for the same weights and way to predict, and one check of a recipe with its network.

    For tests of what follows a prediction, or the start of a run. Building a network, tracing or compiling it takes
    most of the time in which a small scan is segmented.
    """
    from planar3d.inference import segmenter
    from planar3d.networks.weights_file import Model
    from planar3d.study import run_folder

    build, kept = segmenter.predictor, {}
    check, checked = run_folder.check_with_network, set()

    def check_once(recipe):
        if recipe not in checked:
            check(recipe)
        if not Path(recipe.network.encoder_weights).is_file():
            checked.add(recipe)

    def built(network, recipe, **how):
        if not isinstance(network, Model):
            return build(network, recipe, **how)
        # A predictor is of one thread: some tests begin a cohort while another one predicts.
        key = threading.get_ident(), network.sha256, network.recipe, recipe, *how.values()
        if key not in kept:
            kept[key] = build(network, recipe, **how)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmenter, "predictor", built)
        patch.setattr(run_folder, "check_with_network", check_once)
        yield
