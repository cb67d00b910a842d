"""Advice can be followed: a flag that a sentence names is one of the command that says it, and an extra is there."""

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest
import typer

from planar3d import cli
from planar3d.commands import bids_app

ROOT = Path(__file__).parents[1]
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
EXTRA = re.compile(r"planar3d\[([\w,-]+)\]")
# Flags of other programs, by what stands before them.
FOREIGN = {
    "--force-reinstall": "pip",
    "--format": "bids-validator",
    "--out-dtype": "nib-convert",
    "--raw": "dcmdjpeg|gdcmconv",
}
# Where names alone cannot tell who says a sentence: those who reach the code, but never with what it complains of.
EXCUSED = {
    "planar3d.networks.model_card.card_markdown": "writes whole commands, each with its own flags",
    "planar3d.recipes.recipe.Recipe": "only commands with --set give settings",
    "planar3d.training.crops.CropSampling": "as the recipe that it is a part of",
    "planar3d.training.samples.WindowSampling": "as the recipe that it is a part of",
    "planar3d.locks._refuse": "commands without --out wait for a folder",
    "planar3d.scans.folds.choose_folds": "train gives it numbers, not words",
    "planar3d.study.cluster.run_tasks": "commands without --cluster name none",
    "planar3d.study.cluster._client": "as run_tasks, which calls it",
    "planar3d.study.cluster._started": "as run_tasks, which calls it",
    "planar3d.extras._NEEDS": "only run_tasks asks for the extra of a cluster",
    "planar3d.training.precision.built_with": "commands without --precision build in float32",
}
BIDS = "planar3d-bids"
OF_BIDS = {
    "planar3d.study.cohort.segment_all": "it asks for no DICOM objects",
    "planar3d.study.cohort_task.CohortTask": "as segment_all",
    "planar3d.study.dicom_seg.write_dicom_seg": "as segment_all",
    "planar3d.scans.inputs.find_inputs": "it gives one input",
    "planar3d.scans.inputs._find_cases": "of a data set, the files of each image are known",
    "planar3d.inference.segmenter.Segmenter": "it has one model",
    "planar3d.networks.registry.refuse_other_sizes": "another recipe can be named without --set",
    "planar3d.networks.weights_file.Model": "as refuse_other_sizes",
}
GEOMETRY = "planar3d.scans.volume.read_volume"
OF_ONE = {
    BIDS: OF_BIDS,
    "compare": {
        "planar3d.scans.inputs.find_inputs": "gives it the path of a visit, which is one image",
        "planar3d.scans.inputs._find_cases": "only cases of several images are found by it",
    },
    "info": {GEOMETRY: "opens a model, whose targets could read label maps"},
    "export": {GEOMETRY: "as info"},
    "tune": {GEOMETRY: "reads masks that were written with geometry, and assumes that of others"},
    "report": {GEOMETRY: "as tune"},
    "phantom": {GEOMETRY: "asks for the sentence without the flag: nothing can be assumed of masks in MNI space"},
}
COMMANDS = {command.__name__: command for command in cli.COMMANDS}


@functools.cache
def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def _parts(node):
    return list(ast.walk(node))


@functools.cache
def _module(name):
    """A module's definitions by name, and where each name that it imports from the package is defined."""
    path = ROOT.joinpath(*name.split("."))
    tree = _tree(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
    defined, imported = {}, {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                defined |= {part.id: node for part in ast.walk(target) if isinstance(part, ast.Name)}
    for node in _parts(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("planar3d"):
            imported |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    return defined, imported


@functools.cache
def _strings(node):
    """The strings of a definition that are no docstrings."""
    documented = (ast.FunctionDef, ast.ClassDef, ast.Module)
    docstrings = {
        id(part.body[0].value)
        for part in _parts(node)
        if isinstance(part, documented) and part.body and isinstance(part.body[0], ast.Expr)
    }
    constants = [part for part in _parts(node) if isinstance(part, ast.Constant) and id(part) not in docstrings]
    return [part.value for part in constants if isinstance(part.value, str)]


@functools.cache
def _names(node):
    return {part.id for part in _parts(node) if isinstance(part, ast.Name)}


@functools.cache
def _reached(module, name):
    """All definitions that one uses, directly or not, as far as names tell."""
    waiting, seen, asked = [(module, name)], {}, set()
    while waiting:
        module, name = place = waiting.pop()
        if place in asked:  # also a package that imports a module of its own
            continue
        asked.add(place)
        defined, imported = _module(module)
        if name in imported and name not in defined:
            waiting.append(imported[name])
        elif name in defined:
            seen[place] = defined[name]
            waiting += [(module, used) for used in _names(defined[name])]
    return seen


def _options(command):
    app = typer.Typer()
    app.command()(command)
    return {flag for option in typer.main.get_command(app).params for flag in option.opts}


def _options_of(name):
    if name != BIDS:
        return _options(COMMANDS[name])
    return {flag for action in bids_app.parser()._actions for flag in action.option_strings}


def _reached_by(name):
    return _reached(bids_app.__name__, "run") if name == BIDS else _reached(COMMANDS[name].__module__, name)


@pytest.mark.parametrize("name", [*COMMANDS, BIDS])
def test_a_command_has_the_flags_that_its_sentences_name(name):
    options = _options_of(name)
    for (module, function), node in _reached_by(name).items():
        if module.startswith("planar3d.commands") or f"{module}.{function}" in EXCUSED | OF_ONE.get(name, {}):
            continue
        named = {flag for text in _strings(node) for flag in FLAG.findall(text)} - set(FOREIGN)
        assert named <= options, f"{module}.{function} names {named - options}, which planar3d {name} has not"


def test_the_sentence_of_a_scan_without_geometry_is_reached_by_all_commands_that_read_scans():
    module, _, name = GEOMETRY.rpartition(".")
    assert any("--assume-affine" in text for text in _strings(_module(module)[0][name]))
    reading = {command for command in [*COMMANDS, BIDS] if (module, name) in _reached_by(command)}
    assert {"predict", "evaluate", "compare", "train", "crossval", "prepare", "reproduce", BIDS} <= reading


def test_every_flag_and_extra_that_is_named_anywhere_exists():
    options = {"--version"}.union(*map(_options_of, [*COMMANDS, BIDS]))
    options.update(
        *map(FLAG.findall, options)
    )  # as far as they are found in texts: --participant of --participant_label
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for path in ROOT.glob("planar3d/**/*.py"):
        for text in _strings(_tree(path)):
            assert set(FLAG.findall(text)) <= options | set(FOREIGN), f"{path.name}: {text}"
            for found in EXTRA.findall(text):
                assert set(found.split(",")) <= set(extras), f"{path.name}: {text}"
