"""What a release holds: all of the package, the model and the licences, and nothing else of a checkout."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODEL = "weights/ms-flair-open.weights.h5"
LEFT_OUT = (".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "site", "experiments", "benchmarks")


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The files of the sdist of a checkout with things lying about, and the wheel built from it, unpacked."""
    pytest.importorskip("setuptools", minversion="77")
    if not (ROOT / MODEL).is_file():
        pytest.skip("this checkout does not hold the open model")
    place = tmp_path_factory.mktemp("release")
    shutil.copytree(ROOT, place / "checkout", ignore=shutil.ignore_patterns(*LEFT_OUT))
    for stray in ("weights/mine.weights.h5", "runs/demo/scores.csv", "planar3d/__pycache__/cli.cpython-311.pyc"):
        (place / "checkout" / stray).parent.mkdir(parents=True, exist_ok=True)
        (place / "checkout" / stray).write_bytes(b"the user's own")
    run(place / "checkout", "sdist", "--formats=tar", f"--dist-dir={place}")
    with tarfile.open(next(place.glob("*.tar"))) as archive:
        archive.extractall(place / "sdist", filter="data")
    (sdist,) = (place / "sdist").iterdir()
    names = files_below(sdist)
    run(sdist, "bdist_wheel", "--compression=stored", f"--dist-dir={place}")
    with zipfile.ZipFile(next(place.glob("*.whl"))) as archive:
        archive.extractall(place / "wheel")
    return names, place / "wheel"


def run(folder, *command):
    subprocess.run([sys.executable, "setup.py", "-q", *command], cwd=folder, capture_output=True, check=True)


def test_the_sdist_holds_the_package_the_model_and_what_is_said_of_them(built):
    names, _ = built
    others = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "weights/README.md", "weights/ms-flair-open.md"}
    made = {"PKG-INFO", "setup.cfg"} | {name for name in names if name.startswith("planar3d.egg-info/")}
    package = {name for name in files_below(ROOT) if name.startswith("planar3d/") and "__pycache__" not in name}
    assert names == package | others | made | {"pyproject.toml", "setup.py", "MANIFEST.in", MODEL}


def test_the_wheel_holds_the_package_the_model_and_both_licences(built):
    names = files_below(built[1])
    package = {f"planar3d/{name}" for name in files_below(ROOT / "planar3d") if "__pycache__" not in name}
    (information,) = {name.partition("/")[0] for name in names} - {"planar3d"}
    assert {name for name in names if name.startswith("planar3d/")} == package | {f"planar3d/{MODEL}"}
    assert {f"{information}/licenses/{name}" for name in ("LICENSE", "weights/ms-flair-open.md")} <= names
    assert "planar3d = planar3d.__main__:main" in (built[1] / information / "entry_points.txt").read_text()
    large = {name for name in names if (built[1] / name).stat().st_size > 1_000_000}
    assert large == {f"planar3d/{MODEL}"}


def test_the_model_of_a_wheel_is_found_by_its_name(built, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(built[1]))
    monkeypatch.delenv("PLANAR3D_WEIGHTS", raising=False)
    code = "from planar3d.transfer.published_models import find_model; print(find_model('ms-flair-open'))"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == built[1] / "planar3d" / MODEL
