"""Write the comparison's table, computed facts and learning curves into docs/results.md and curves.png.

    python experiments/transfer/summarize.py

The text between the two markers of docs/results.md is replaced; everything else there is written by hand.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import typer
from outcomes import ARMS, FOLDS, HERE, SEEDS, Planned, Row, runs_in

from planar3d.cli import main
from planar3d.evaluation.figures import canvas, save
from planar3d.evaluation.scores import Summary, summarize
from planar3d.files import read_rows, write_text
from planar3d.wording import counted

RESULTS_PAGE = HERE.parents[1] / "docs" / "results.md"
BEGIN, END = "<!-- computed: transfer -->", "<!-- end of computed: transfer -->"
REFERENCE = next(iter(ARMS))
FAILED = 0.05  # mean Dice below which a run counts as failed
LOST = 0.01  # validation Dice of windows that a constant probability also reaches
_NEW_PAGE = """# Results

Nine patients with whole-head FLAIR scans and expert masks of multiple-sclerosis lesions; folds are by patient, and
scores are of the native grid.
"""
Key = TypeVar("Key")
_HEADING = "## Transfer against scratch"
# Okabe and Ito's colour-blind-safe colours, one per seed.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def summarize_transfer(
    results: Annotated[Path, typer.Option("--results", help="Folder of results.csv and curves.csv.")] = HERE,
    page: Annotated[Path, typer.Option("--page", help="Markdown page to write into.")] = RESULTS_PAGE,
    settings: Annotated[str, typer.Option("--settings", help="Runs with these settings.")] = "",
) -> None:
    """Print the table and the facts, and write them into the page; draw the learning curves."""
    rows = [row for row in read_rows(results / "results.csv") if row["settings"] == settings]
    curves = [row for row in read_rows(results / "curves.csv") if row["settings"] == settings]
    text = section(rows)
    typer.echo(text)
    before = page.read_text(encoding="utf-8") if page.is_file() else _NEW_PAGE
    write_text(page, with_section(before, text))
    if curves:
        draw_curves(curves, results / "curves.png")


def section(rows: Sequence[Row]) -> str:
    """The table, its conditions, and facts computed from it, as Markdown."""
    planned = len(ARMS) * len(SEEDS) * len(FOLDS)
    there = len(_planned_runs(rows))
    lines = [f"{there} of {planned} planned runs ({len(ARMS)} arms, {len(FOLDS)} folds, {len(SEEDS)} seeds) are done."]
    lines[0] += " `experiments/transfer/run.py` runs them, `summarize.py` writes this section."
    if rows:
        unmarked = sum(math.isnan(_value(row, "precision")) for row in rows)
        steps, versions = (" or ".join(sorted({row[name] for row in rows})) for name in ("steps", "versions"))
        lines += [
            f"Each run trained for {steps} steps and kept the weights with the best validation Dice. Scores are on the "
            "native grid at threshold 16 of 256; ± is the standard deviation over scans, each averaged over seeds. The "
            "next column is the standard deviation over seeds, each averaged over all folds. Lesion F1 is 0 if no "
            f"lesion was found; precision excludes masks that mark nothing ({unmarked} of {len(rows)}). Validation "
            "Dice is computed on windows, without a threshold, in the best and in the last epoch; ± is over runs. A "
            "collapsed run marks no voxel of its test scans; a failed run has a mean Dice below "
            f"{FAILED:g}, whatever it marks. Time and memory are means over runs; {versions}.",
            "",
            *table(rows),
            "",
            "![Learning curves](../experiments/transfer/curves.png)",
            "",
            "Computed from the rows of the table:",
            "",
            *facts(rows),
        ]
    return "\n".join(lines)


def table(rows: Sequence[Row]) -> list[str]:
    """A Markdown row for each arm, with two heading lines."""
    heads = [
        *("Encoder", "runs", "Dice", "± over seeds", "Dice at 128", "sensitivity", "precision", "lesion F1"),
        *("best val. Dice", "last", "collapsed", "failed", "training, s", "GiB"),
    ]
    lines = [" | ".join(heads), " | ".join([":--", *["--:"] * (len(heads) - 1)])]
    for arm, label in ARMS.items():
        own = [row for row in rows if row["arm"] == arm]
        runs = _by_run(own)
        dices = [_mean(values, "dice") for values in runs.values()]
        cells = [
            label,
            f"{len(_planned_runs(own))} of {len(SEEDS) * len(FOLDS)}",
            str(over_scans(own, "dice")),
            _sd(over_seeds(own, "dice")),
            *(str(over_scans(own, name)) for name in ("dice_at_128", "sensitivity", "precision", "lesion_f1")),
            *(str(summarize(_mean(v, name) for v in runs.values())) for name in ("best_val_dice", "last_val_dice")),
            str(sum(map(_has_collapsed, runs.values()))),
            str(sum(dice < FAILED for dice in dices)),
            *(_plain(runs, name, digits) for name, digits in (("train_seconds", 0), ("peak_gib", 1))),
        ]
        lines.append(" | ".join(cells))
    return [f"| {line} |" for line in lines]


def facts(rows: Sequence[Row]) -> list[str]:
    """Collapsed arms, and the difference of each from the first arm over common runs, as list items."""
    lines = []
    by_arm = {arm: _by_run([row for row in rows if row["arm"] == arm]) for arm in ARMS}
    for title, holds in _COUNTED.items():
        counts = {arm: sum(map(holds, runs.values())) for arm, runs in by_arm.items()}
        named = [f"{ARMS[arm]}: {n} of {len(by_arm[arm])}" for arm, n in counts.items() if n]
        lines.append(f"- {title}: {'; '.join(named) or 'none'}.")
    for arm in list(ARMS)[1:]:
        shared = sorted(set(by_arm[arm]) & set(by_arm[REFERENCE]))
        if not shared:
            continue
        parts = []
        for name, where in (("dice", "at 16"), ("dice_at_128", "at 128")):
            theirs, ours = (_scan_means(_taken(by_arm[a], shared), name) for a in (arm, REFERENCE))
            differences = [theirs[scan] - ours[scan] for scan in ours]
            lower = sum(d < 0 for d in differences)
            summary = summarize(differences)
            parts.append(f"{_signed(summary)} {where} (lower in {lower} of {len(differences)} scans)")
        lines.append(
            f"- {ARMS[arm]}: Dice difference from {ARMS[REFERENCE]} over {counted(shared, 'common run')}, mean ± sd "
            f"over scans: {'; '.join(parts)}."
        )
    return lines


def over_scans(rows: Iterable[Row], name: str) -> Summary:
    """Mean and standard deviation over scans, each the mean of its seeds."""
    return summarize(_scan_means(rows, name).values())


def over_seeds(rows: Sequence[Row], name: str) -> Summary:
    """Mean and standard deviation over the seeds with all folds, each the mean of its scans."""
    by_seed = _grouped(rows, lambda row: row["seed"])
    whole = [v for v in by_seed.values() if {int(row["fold"]) for row in v} >= set(FOLDS)]
    return summarize(_mean(values, name) for values in whole)


def with_section(page: str, text: str) -> str:
    """The page with `text` between its markers; with the section at its end if it has none."""
    content = f"{BEGIN}\n{text}\n{END}"
    if BEGIN not in page:
        return f"{page.rstrip()}\n\n{_HEADING}\n\n{content}\n"
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{content}{after}"


def draw_curves(curves: Sequence[Row], path: Path) -> Path:
    """Plot training and validation Dice over the steps, with one panel per arm, line per run and colour per seed."""
    figure = canvas(10, 5.6)
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    seeds = sorted({row["seed"] for row in curves}, key=int)
    for axes, (arm, label) in zip(panels.flat, ARMS.items(), strict=True):
        runs = _grouped([row for row in curves if row["arm"] == arm], lambda row: (row["seed"], row["fold"]))
        for (seed, _), rows in sorted(runs.items()):
            colour = _COLOURS[seeds.index(seed) % len(_COLOURS)]
            steps = [int(row["steps"]) for row in rows]
            axes.plot(steps, [float(row["dice"]) for row in rows], ":", color=colour, linewidth=0.9)
            axes.plot(steps, [float(row["val_dice"]) for row in rows], "-", color=colour, linewidth=1.3)
        axes.set_title(label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    for axes in panels[:, 0]:
        axes.set_ylabel("Dice of windows", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("steps", fontsize=9)
    for number, seed in enumerate(seeds):
        panels.flat[0].plot([], [], color=_COLOURS[number % len(_COLOURS)], label=f"seed {seed}")
    panels.flat[0].plot([], [], ":", color="black", label="training")
    panels.flat[0].plot([], [], "-", color="black", label="validation")
    figure.legend(loc="lower center", ncols=len(seeds) + 2, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    return save(figure, path)


def _value(row: Row, name: str) -> float:
    value = float(row[name] or "nan")
    # In rows of earlier versions, nan means that none of a scan's lesions was found.
    return 0.0 if name == "lesion_f1" and math.isnan(value) else value


def _mean(rows: Iterable[Row], name: str) -> float:
    return summarize(_value(row, name) for row in rows).mean


def _scan_means(rows: Iterable[Row], name: str) -> dict[str, float]:
    return {scan: _mean(own, name) for scan, own in _grouped(rows, lambda row: row["scan"]).items()}


def _by_run(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    return _grouped(rows, lambda row: (row["seed"], row["fold"]))


def _taken(runs: dict[tuple[str, str], list[Row]], chosen: Iterable[tuple[str, str]]) -> list[Row]:
    return [row for run in chosen for row in runs[run]]


def _grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    groups: defaultdict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(groups)


def _planned_runs(rows: Iterable[Row]) -> set[tuple[str, ...]]:
    planned = {Planned(arm, seed, fold).key()[:3] for arm in ARMS for seed in SEEDS for fold in FOLDS}
    return {key[:3] for key in runs_in(rows)} & planned


def _plain(runs: dict[tuple[str, str], list[Row]], name: str, digits: int) -> str:
    mean = float(np.mean([float(rows[0][name]) for rows in runs.values()])) if runs else math.nan
    return "–" if math.isnan(mean) else f"{mean:.{digits}f}"


def _sd(summary: Summary) -> str:
    return "–" if math.isnan(summary.sd) else f"{summary.sd:.3f}"


def _signed(summary: Summary) -> str:
    return str(summary) if summary.mean < 0 else f"+{summary}"


def _has_collapsed(run: Sequence[Row]) -> bool:
    return all(row["collapsed"] == "yes" for row in run)


# The kept weights are those of the best epoch, so a run may have collapsed later without effect on the masks.
_COUNTED: dict[str, Callable[[Sequence[Row]], bool]] = {
    "Collapsed runs": _has_collapsed,
    f"Runs that ended at a validation Dice below {LOST:g}": lambda run: float(run[0]["last_val_dice"]) < LOST,
}


if __name__ == "__main__":
    main(summarize_transfer)
