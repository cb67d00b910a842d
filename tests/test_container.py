"""The container's recipes copy what is there, say today's version, and name no place but the base image's."""

import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import planar3d

ROOT = Path(__file__).parents[1]
DOCKERFILE, APPTAINER = (ROOT / name for name in ("Dockerfile", "apptainer.def"))


@pytest.fixture(scope="module")
def steps():
    spec = importlib.util.spec_from_file_location("container_steps", ROOT / ".ci/container_steps.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def said(steps):
    return list(steps.instructions(DOCKERFILE.read_text()))


def labels(said):
    return {key: json.loads(text) for word, rest in said if word == "LABEL" for key, _, text in [rest.partition("=")]}


def section(name):
    text = re.search(rf"(?ms)^%{name}\n(.*?)(?=^%|\Z)", APPTAINER.read_text()).group(1)
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_what_is_copied_is_there_and_is_sent_to_the_builder(steps, said):
    ignored = (ROOT / ".dockerignore").read_text()
    copied = [rest.split()[:-1] for word, rest in said if word == "COPY" and "--from" not in rest]
    names = {name for line in copied for name in line}
    assert {"planar3d", "weights", "LICENSE"} <= names
    for name in names:
        path = ROOT / name
        files = (
            [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        )
        sent = [p for p in files if steps.is_sent(str(p.relative_to(ROOT)), ignored)]
        assert sent if name == "weights" else sent == files, name
    assert steps.is_sent("weights/ms-flair-open.weights.h5", ignored)
    for name in ("tests/conftest.py", ".git/HEAD", "weights/other.h5", "planar3d/scans/__pycache__/x.pyc"):
        assert not steps.is_sent(name, ignored), name


def test_labels_say_the_version_and_the_licences(said):
    found = labels(said)
    assert found["org.opencontainers.image.version"] == planar3d.__version__
    assert found["org.opencontainers.image.licenses"] == "MIT AND CC-BY-4.0"
    assert dict(line.split(" ", 1) for line in section("labels")) == found


def test_the_image_runs_the_command_as_nobody_special_and_offline(said):
    last = dict(said)
    assert json.loads(last["ENTRYPOINT"]) == ["planar3d"] and last["USER"] not in ("root", "0", "0:0")
    assert ("ENV", "PLANAR3D_OFFLINE=1") in said


def test_only_the_plain_base_image_is_named(said):
    bases = {rest.split()[0] for word, rest in said if word == "FROM"}
    assert len(bases) == 1 and f"\nFrom: {bases.copy().pop()}\n" in APPTAINER.read_text()
    for path in (DOCKERFILE, APPTAINER):
        text = re.sub(r"(?m)^\s*#.*$", "", path.read_text())
        assert not re.search(r"https?://|--index-url|[\w-]+\.(io|com|org|net)/", text), path


def test_the_definition_runs_the_commands_of_the_dockerfile(said):
    begin = max(number for number, (word, _) in enumerate(said) if word == "FROM")
    built = [(word, rest) for word, rest in said[:begin] if word in ("WORKDIR", "RUN")]
    commands = [f"cd {rest}" if word == "WORKDIR" else rest for word, rest in built]
    (licences,) = [rest for word, rest in said[begin:] if word == "COPY" and "--from" not in rest]
    assert section("post") == [*commands, f"cp {licences}", "rm -r /source"]
    variables = {f"export {rest}" for word, rest in said if word == "ENV" and not rest.startswith("HOME=")}
    assert set(section("environment")) == variables
    copied = {name for word, rest in said if word == "COPY" and "--from" not in rest for name in rest.split()[:-1]}
    sources = [line.split()[0] for line in section("files")]
    assert all((ROOT / source).exists() for source in sources)
    assert copied == {"weights" if source.startswith("weights/") else source for source in sources} | {
        "weights/ms-flair-open.md"
    }


CHECKS = """set -e
test "$(id -u):$(id -g)" = 1000:1001
test "$GIVEN$LEAKED" = yes
test "$(pwd)" = /tmp
test -d /sys/class/net/lo
test -z "$(grep -v Iface /proc/net/route)"
test "$(cat /in/scan)" = voxels
if touch /in/more 2>/dev/null; then exit 1; fi
touch /out/made
"""


@pytest.mark.skipif(subprocess.run("unshare --mount --pid --fork true", shell=True).returncode, reason="needs root")
def test_programs_run_as_the_user_with_given_variables_and_folders_only_and_without_a_network(
    steps, tmp_path, monkeypatch
):
    monkeypatch.setenv("LEAKED", "leaked")
    for name in ("in", "out", "root/proc", "root/sys", "root/dev", "root/tmp"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "in/scan").write_text("voxels")
    for name in ("in", "out"):
        os.chown(tmp_path / name, 1000, 1001)
    system = [f"/{name}:/{name}:ro" for name in ("bin", "lib", "lib64", "usr") if Path("/", name).exists()]
    volumes = [steps.volume(text) for text in (*system, f"{tmp_path}/in:/in:ro", f"{tmp_path}/out:/out")]
    stage = steps.Stage(tmp_path / "root", folder="/tmp", user="1000:1001")
    assert stage.run(["sh", "-c", CHECKS], volumes, {"GIVEN": "yes"}) == 0
    made = (tmp_path / "out/made").stat()
    assert (made.st_uid, made.st_gid) == (1000, 1001)
    assert not list((tmp_path / "root/in").iterdir())  # all mounts are gone
