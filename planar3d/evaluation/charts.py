"""Charts of a study: learning curves by fold, and box plots by center."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from planar3d.evaluation.canvas import canvas, default_style, legend_below, save
from planar3d.evaluation.figures import shortened
from planar3d.evaluation.scores import MEASURES, Measure, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour-blind-safe colours of Okabe and Ito.
_TRAINING, _VALIDATION, _PUBLISHED, _GREY = "#0072B2", "#D55E00", "#009E73", "#888888"
_CURVES = {"loss": "Loss", "dice": "Dice"}  # labels of the history's columns; of a loss, lower is better
_FOLDS_IN_A_BAND = 5

LESION_BOXES = (
    *("dice", "sensitivity", "precision", "assd_mm"),
    *("lesion_f1", "lesion_sensitivity", "lesion_precision", "hd95_mm"),
)
_IN_A_ROW, _WIDEST = 4, 13.5  # panels of a figure, and inches that they may take
_CENTER_LETTERS = 20


@default_style()
def learning_curves(histories: Mapping[int, Mapping[str, np.ndarray]], path: str | Path) -> Path:
    """Plot loss and Dice over the epochs, one column per fold, as PNG.

    A dot marks the best validation value of each curve.

    Args:
        histories: by fold, columns of its history.csv as arrays over the epochs: epoch, loss, val_loss, dice,
            val_dice; missing ones are not drawn.
    """
    columns = min(len(histories), _FOLDS_IN_A_BAND)
    bands = math.ceil(len(histories) / columns)
    figure = canvas(max(2.3 * columns, 4.2) + 0.6, 3.9 * bands + 0.5)
    panels = figure.subplots(2 * bands, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_visible(False)
    for row, (name, label) in enumerate(_CURVES.items()):
        for place, (number, history) in enumerate(sorted(histories.items())):
            band, column = divmod(place, columns)
            axes = panels[2 * band + row, column]
            axes.set_visible(True)
            if place:
                axes.sharey(panels[row, 0])
            _draw_curves(axes, name, history)
            axes.tick_params(labelsize=8, labelleft=column == 0)
            if row == 0:
                axes.set_title(f"fold {number}", fontsize=10)
            else:
                axes.set_xlabel("epoch", fontsize=9)
            if column == 0:
                axes.set_ylabel(label, fontsize=10)
    panels[1, 0].set_ylim(bottom=-0.03)  # of Dice
    lines = {"training": {"color": _TRAINING}}
    if any(
        np.isfinite(history.get(f"val_{name}", math.nan)).any() for history in histories.values() for name in _CURVES
    ):
        lines["validation (dot: best)"] = {"color": _VALIDATION}
    _legend(figure, lines)
    return save(figure, path)


@default_style()
def box_plots(
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    path: str | Path,
    published: Mapping[str, Mapping[str, Summary]] | None = None,
    measures: Mapping[str, Measure] = MEASURES,
) -> Path:
    """Plot one box per center, with every scan as a point, for every available measure, as PNG.

    Args:
        scores: by center, by measure, the values of its scans; nan is excluded, and noted on the axis.
        published: by measure, by center, figures marked beside the boxes.
    """
    shown = list(next(iter(scores.values())))
    panel = 0.3 * len(scores) + 1.75
    abreast = int(np.clip(_WIDEST // panel, 1, _IN_A_ROW))
    rows, width = -(-len(shown) // abreast), max(11.0, abreast * panel)
    figure = canvas(width, 3.1 * rows)
    panels = figure.subplots(rows, min(len(shown), abreast), squeeze=False)
    for axes in panels.flat[len(shown) :]:
        axes.remove()
    marked = False
    for axes, measure in zip(panels.flat, shown, strict=False):
        defined = [[v for v in center[measure] if not math.isnan(v)] for center in scores.values()]
        _draw_boxes(axes, defined)
        for place, center in enumerate(scores, start=1):
            if printed := (published or {}).get(measure, {}).get(center):
                axes.plot(place + 0.38, printed.mean, "D", color=_PUBLISHED, markersize=6, clip_on=False)
                marked = True
        axes.set_title(textwrap.fill(measures[measure].heading, int(10 * width / abreast)), fontsize=10)
        centers = [shortened(center, _CENTER_LETTERS) for center in scores]
        crowded = sum(map(len, centers)) > 12 * width / abreast
        names = [
            name if len(values) == len(center[measure]) else f"{name}\n{len(values)} of {len(center[measure])}"
            for name, center, values in zip(centers, scores.values(), defined, strict=True)
        ]
        axes.set_xticks(range(1, len(scores) + 1), names, fontsize=9, parse_math=False)
        if crowded:
            axes.tick_params(axis="x", rotation=60)
            for text in axes.get_xticklabels():
                text.set(ha="right", rotation_mode="anchor")
        axes.set_ylim(bottom=0) if measures[measure].unit else axes.set_ylim(-0.03, 1.03)
    markers = {"one scan": {"color": _TRAINING, "marker": "o", "linestyle": "none"}}
    if marked:
        markers["published mean"] = {"color": _PUBLISHED, "marker": "D", "linestyle": "none"}
    _legend(figure, markers)
    return save(figure, path)


def _draw_curves(axes: "Axes", name: str, history: Mapping[str, np.ndarray]) -> None:
    for column, colour in ((name, _TRAINING), (f"val_{name}", _VALIDATION)):
        values = history.get(column)
        if values is None or not np.isfinite(values).any():
            continue
        epochs = history.get("epoch", np.arange(1, len(values) + 1))
        # A single epoch is a point, which a line would not show.
        axes.plot(epochs, values, color=colour, linewidth=1.5, marker="." if len(values) < 3 else None)
        if len(values) == 1:
            axes.set_xlim(epochs[0] - 1, epochs[0] + 1)  # else there are ticks between epochs
        if column != name:
            best = np.nanargmin(values) if name == "loss" else np.nanargmax(values)
            axes.plot(epochs[best], values[best], "o", color=colour, markersize=5)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.locator_params(axis="x", integer=True, nbins=5)


def _draw_boxes(axes: "Axes", values: list[list[float]]) -> None:
    lines: dict[str, Any] = {f"{part}props": {"color": _GREY} for part in ("box", "whisker", "cap")}
    axes.boxplot(values, widths=0.5, showfliers=False, medianprops={"color": "black", "linewidth": 1.6}, **lines)
    for place, points in enumerate(values, start=1):
        # Spread by order, not at random, so that the same scores give the same picture.
        shift = np.linspace(-0.15, 0.15, len(points)) if len(points) > 1 else np.zeros(len(points))
        axes.plot(place + shift, points, "o", color=_TRAINING, markersize=4.5, alpha=0.75, markeredgewidth=0)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)


def _legend(figure: "Figure", entries: Mapping[str, Mapping[str, str]]) -> None:
    """Add a legend below the panels: by label, the properties of its line."""
    figure.tight_layout(rect=(0, 0.35 / figure.get_figheight(), 1, 1))
    figure.set_layout_engine(None)  # or matplotlib would draw all of it twice
    legend_below(figure, entries.items())
