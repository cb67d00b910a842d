"""What the documentation tells readers to type: commands that the app takes, Python that names what is there."""

import ast
import csv
import importlib
import inspect
import re
import runpy
import shlex
from functools import partial
from pathlib import Path

import keras
import nibabel as nib
import numpy as np
import pytest
import typer
from msseg import write_model, write_msseg

import planar3d
from planar3d.cli import app
from planar3d.commands import bids_app
from planar3d.recipes import find_recipe

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "weights/README.md", *ROOT.glob("docs/**/*.md")])
COMMANDS = typer.main.get_command(app).commands
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(page, language):
    return [text for kind, text in _FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def each_line():
    """Every line of every shell block that runs this package, with its page."""
    for page in PAGES:
        for line in "\n".join(blocks(page, "bash") + blocks(page, "")).replace("\\\n", "").splitlines():
            if re.match(r"(\w+=\S+ )*(planar3d|python \w+/\w+\.py) ", line):
                yield pytest.param(line, id=f"{page.stem}: {line}")


def command_of(words):
    """The command that a line runs, and its arguments."""
    words = words[next(i for i, word in enumerate(words) if "=" not in word) :]
    if words[0] == "planar3d":
        return COMMANDS[words[1]], words[2:]
    script = ROOT / words[1]
    (function,) = re.findall(r"^    main\((\w+)\)$", script.read_text(encoding="utf-8"), re.M)
    alone = typer.Typer(add_completion=False)
    alone.command()(runpy.run_path(str(script))[function])
    return typer.main.get_command(alone), words[2:]


@pytest.mark.parametrize("line", each_line())
def test_a_command_line_is_one_that_the_app_takes(line):
    words = shlex.split(line, comments=True)
    if words[1:] and words[-2] == ">":
        words = words[:-2]
    if "benchmarks/" in line:
        assert (ROOT / next(word for word in words if word.startswith("benchmarks/"))).is_file()
        return
    command, arguments = command_of(words)
    params = command.make_context(command.name, arguments).params
    find_recipe(params.get("recipe") or "paper").with_settings(list(params.get("settings") or []))


def test_options_in_the_text_exist():
    known = {option for command in COMMANDS.values() for param in command.params for option in param.opts}
    known |= {option for action in bids_app.parser()._actions for option in action.option_strings}
    known |= {"--help", "--demo", "--strict", "--scheduler-file"}
    known |= {"--dist", "--read-only", "--tmpfs", "--network", "--containall", "--app"}  # of pytest and containers
    known |= set(re.findall(r'"(--[a-z]+)"', (ROOT / ".ci/container_steps.py").read_text(encoding="utf-8")))
    for page in PAGES:
        text = _FENCE.sub("", page.read_text(encoding="utf-8"))
        for span in re.findall(r"`([^`\n]+)`", text):
            assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", span)) <= known, f"{page}: {span}"
            if name := re.match(r"planar3d ([a-z]+)", span):
                assert name[1] in COMMANDS, f"{page}: {span}"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: page.stem)
def test_python_names_what_is_there(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("planar3d"):
                home = importlib.import_module(node.module)
                assert all(hasattr(home, alias.name) for alias in node.names), ast.unparse(node)
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("p3."):
                function = getattr(planar3d, node.func.attr)
                inspect.signature(function).bind(*node.args, **{key.arg: key.value for key in node.keywords})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page):
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        target = (page.parent / link).resolve()
        assert "://" in link or target.exists(), f"{page}: {link}"


def test_the_page_on_conversion_runs_and_shows_the_report_that_it_prints(tmp_path, monkeypatch, capsys):
    """All of it but the download of torch's weights, on a network with random weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.applications, "MobileNetV2", partial(keras.applications.MobileNetV2, weights=None))
    page, names = ROOT / "docs/how-to/convert.md", {}
    for block in blocks(page, "python"):
        if "fetch_known" not in block:
            exec(block.replace("table = network.transfer_report.to_frame()", ""), names)
    assert capsys.readouterr().out.endswith(blocks(page, "text")[0])
    assert Path("mobilenet3d.card.json").is_file() and names["last"].get_layer("block_16_depthwise").kernel_size[0] == 3


def test_the_system_of_the_how_to_trains_is_scored_and_segments(tmp_path, one_box):
    """The program of the page as it stands, on two small cases."""
    (program,) = blocks(ROOT / "docs/how-to/add-a-system.md", "python")
    assert len(program.splitlines()) < 100
    page = tmp_path / "program.py"
    page.write_text(program)
    rng = np.random.default_rng(0)
    rows = ["id,image:t1,image:t2,labels"]
    for case in ("p01", "p02", "p03", "p04"):
        labels = rng.integers(0, 4, (5, 6, 4)).repeat(4, 0).repeat(4, 1).repeat(4, 2).astype(np.uint8)
        images = {"t1": 100 * labels, "t2": 900 - 200.0 * labels}
        for name, volume in (*images.items(), ("labels", labels)):
            noisy = volume if name == "labels" else volume + rng.normal(0, 5, volume.shape)
            kind = np.uint8 if name == "labels" else np.float32
            nib.save(
                nib.Nifti1Image(noisy.astype(kind), np.diag([-1.0, -1, 1.5, 1])), tmp_path / f"{case}_{name}.nii.gz"
            )
        rows.append(f"{case},{case}_t1.nii.gz,{case}_t2.nii.gz,{case}_labels.nii.gz")
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    names = runpy.run_path(str(page))
    recipe = names["RECIPE"].changed(epochs=5, patches_per_epoch=16, filters=4, learning_rate=1e-2)
    try:
        found = names["main"](tmp_path / "cases.csv", tmp_path / "run", recipe)
    finally:
        for table in (names["NETWORKS"], names["ARCHITECTURES"]):
            table.pop("small-unet", None)
    reference = np.asarray(nib.load(tmp_path / "p01_labels.nii.gz").dataobj)
    assert found.voxels.shape == reference.shape and set(np.unique(found.voxels)) <= {0, 1, 2, 3}
    assert (found.voxels == reference).mean() > 0.5  # by chance a quarter
    with (tmp_path / "run/fold-1/scores.csv").open() as stream:
        scores = list(csv.DictReader(stream))
    assert {row["target"] for row in scores} == {"csf", "grey", "white"} and (
        tmp_path / "run/report/report.html"
    ).is_file()


def test_the_whole_of_a_trained_network_is_trained_further_as_the_page_says(tmp_path, monkeypatch, untraced):
    """The program of the page as it stands, on a tiny network."""
    monkeypatch.chdir(tmp_path)
    case = write_msseg(tmp_path, ["01A"]) / "TrainingDataset_MSSEG/01A"
    for name, file in {"scan": "3DFLAIR", "lesions": "Consensus"}.items():
        (case / f"{file}.nii.gz").rename(f"{name}.nii.gz")
    program = next(block for block in blocks(ROOT / "docs/how-to/encoder.md", "python") if "save_weights" in block)
    assert "ms-flair-open" in program
    names = {"p3": planar3d}
    exec(program.replace("ms-flair-open", str(write_model(tmp_path))), names)
    before, after = (planar3d.load_network(file)[0].get_weights() for file in ("tiny.weights.h5", "mine.weights.h5"))
    assert all(np.any(one != other) for one, other in zip(before, after, strict=True))
    assert names["mask"].voxels.shape == nib.load("scan.nii.gz").shape
