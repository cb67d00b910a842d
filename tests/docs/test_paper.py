"""What the paper and the citation file say is what the repository says."""

import csv
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import planar3d

ROOT = Path(__file__).parents[2]
PAPER = (ROOT / "paper/paper.md").read_text(encoding="utf-8")
SCORES = ("dice", "sensitivity", "precision", "lesion_f1")
NAMES = {
    "ms-flair-open": "`planar3d`, recipe `modern`",
    "samseg": "SAMSEG",
    "lst-lpa": "LST, lesion prediction algorithm",
    "wmh-synthseg": "WMH-SynthSeg",
    "bianca": "BIANCA",
    "lst-lga": "LST, lesion growth algorithm",
}


def rows_of(text):
    """The cells of every row of its tables."""
    return [[cell.strip() for cell in line.split("|")] for line in re.findall(r"^\|(.*)\|$", text, re.M)]


def test_every_reference_is_in_the_bibliography_and_cited():
    bibliography = re.findall(r"^@\w+\{(\w+),", (ROOT / "paper/paper.bib").read_text(encoding="utf-8"), re.M)
    text = PAPER.partition("---\n")[2].partition("---\n")[2]
    assert set(re.findall(r"@(\w+)", text)) == set(bibliography) and len(set(bibliography)) == len(bibliography)


def test_it_has_the_sections_and_the_length_that_the_journal_asks_for():
    sections = ["Summary", "Statement of need", "State of the field", "Software design", "Research impact statement"]
    sections += ["AI usage disclosure", "Acknowledgements", "References"]
    assert re.findall(r"^# (.+)$", PAPER, re.M) == sections
    assert 750 <= len(PAPER.split()) <= 1750


def test_its_table_of_programs_is_that_of_the_scores():
    scores = defaultdict(list)
    with (ROOT / "experiments/rivals/scores.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            scores[row["method"]].append([float(row[name]) for name in SCORES])
    table = {row[0]: [float(cell) for cell in row[1:]] for row in rows_of(PAPER) if row[0] in NAMES.values()}
    assert table.keys() == {NAMES[method] for method in scores}
    for method, rows in scores.items():
        assert table[NAMES[method]] == pytest.approx(np.mean(rows, axis=0), abs=6e-4)


def test_its_table_of_speed_is_that_of_the_benchmark():
    results = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    section = results.partition("## Alternatives: Intel")[2].partition("\n## ")[0]
    rows, known = rows_of(PAPER.partition("| Method  ")[2])[1:], {row[0]: row for row in rows_of(section)}
    names = [
        "keras, batch 2",
        "torch, MONAI",
        "ONNX Runtime, windowed",
        "OpenVINO, windowed",
        "OpenVINO, windowed, bf16",
    ]
    names += [f"planar3d, shared, {engine}" for engine in ("keras", "openvino", "openvino, bf16")]
    for row, name in zip(rows, names, strict=True):
        assert row[1] == known[name][1]
        assert float(row[2]) == pytest.approx(float(known[name][2]), abs=0.06)


def test_the_version_and_licence_to_cite_are_those_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert re.search(r"^version: (\S+)", citation, re.M)[1] == planar3d.__version__
    assert re.search(r"^license: (\S+)", citation, re.M)[1] == project["license"].split(" AND ")[0]
