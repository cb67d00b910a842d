"""A scan in three planes with the outlines of its lesions, and parts that other figures share."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from planar3d.evaluation.canvas import canvas, default_style, legend_below, save
from planar3d.scans.head import counts_along, upright
from planar3d.scans.volume import Scan, on_grid_of
from planar3d.wording import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colour and line width of the outlines. The colours are two of Okabe and Ito's, distinct for colour-blind readers,
# also on grey; the reference is broader and drawn first, so that both stay visible where they agree.
_OUTLINES = {"reference": ("#56B4E9", 2.0), "prediction": ("#E69F00", 0.9)}
# For targets in order: six of theirs, then each as far as possible in CIELAB from those before it and from grey.
_COLOURS = (
    *("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#F0E442", "#D55E00", "#9900FF", "#00FF00", "#FF0066", "#FF00CC"),
    *("#0066FF", "#00FF99", "#339900", "#00FFFF", "#CC9966", "#9999FF", "#CCFF99", "#FF0000", "#CC66FF", "#CCFF00"),
)
_PALE, _BROAD = "80", 2.6  # for outlines of the reference's parts
_OVERLAY_WIDTH, _TITLE_HEIGHT, _LEGEND_HEIGHT, _LEGEND_LINE = 11.5, 0.7, 0.4, 0.22  # inches
_TITLE_LETTERS, _LEGEND_LETTERS = 76, 60  # that fit in the width, also as capitals
_LARGEST_SLICE = 512  # pixels along an edge; a panel has fewer


class View(NamedTuple):
    """A plane of a volume stored right, anterior, superior: its normal axis, and the layout of its slice.

    Flipped rows and columns run against their axes.
    """

    name: str
    axis: int
    rows: int
    columns: int
    flip_columns: bool
    left: str
    right: str


# The face looks to the left, as in the paper's figures; the patient's left is shown on the left.
VIEWS = (
    View("sagittal", axis=0, rows=2, columns=1, flip_columns=True, left="A", right="P"),
    View("axial", axis=2, rows=1, columns=0, flip_columns=False, left="L", right="R"),
    View("coronal", axis=1, rows=2, columns=0, flip_columns=False, left="L", right="R"),
)


def views_of(shape: Sequence[int]) -> Sequence[View]:
    """The planes in which a volume (right, anterior, superior) is more than a line: one of a two-dimensional image."""
    return [view for view in VIEWS if min(shape[view.rows], shape[view.columns]) > 1] or VIEWS


@default_style()
def overlay(
    scan: Scan,
    prediction: Scan,
    reference: Scan | None,
    path: str | Path,
    title: str,
    parts: Mapping[str, np.ndarray] | None = None,
    expected: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Draw a sagittal, an axial and a coronal slice with the outlines of both masks, and write them as PNG.

    In each direction, the slice with the largest lesion area is shown: of the reference; of the prediction if there is
    no reference or it is empty; the middle slice if both are empty. Of a two-dimensional image only its plane is shown.

    Args:
        scan: the intensities; stored in any orientation.
        prediction: the predicted mask on the grid of the scan; above 0.5 is lesion.
        reference: the expert's mask on the grid of the scan, or None.
        parts: boolean masks of the prediction's parts by name, on the grid of the scan; outlined instead of the whole.
        expected: the reference's masks of the parts, outlined underneath in paler, broader lines of the same colours.

    Raises:
        ScanError: the masks are not on the scan's grid.
    """
    voxels, zooms = upright(scan.voxels, scan)
    given = {"reference": reference, "prediction": prediction}
    found = {name: on_grid_of(scan, mask).voxels > 0.5 for name, mask in given.items() if mask is not None}
    below = {f"{name}, reference": mask for name, mask in (expected or {}).items()} if parts else {}
    masks = {name: upright(mask, scan)[0] for name, mask in (below | dict(parts or found)).items()}
    styles = _OUTLINES
    if parts:
        styles = {n: (colour, 0.9 * times) for n, (colour, times) in outlines(parts).items()}
        # The last two digits of a colour are its opacity.
        styles |= {f"{n}, reference": (styles[n][0] + _PALE, _BROAD) for n in expected or {}}
    guide = next((mask for mask in masks.values() if mask.any()), None)
    low, high = grey_window(voxels)
    head = bright_box(voxels, low, high)
    # One scale for all three planes, unless extreme slice spacing would make the figure unreadable.
    edges = [(box.stop - box.start) * zoom for box, zoom in zip(head, zooms, strict=True)]
    views = views_of(voxels.shape)
    widths, heights = ([edges[getattr(view, along)] for view in views] for along in ("columns", "rows"))
    panel = float(np.clip(_OVERLAY_WIDTH * max(heights) / sum(widths), 2, 8))
    legend = {name: styles[name] for name in masks if name not in below}
    legend |= {"reference, paler": ("#FFFFFF" + _PALE, _BROAD)} if below else {}
    widest = max(min(len(name), _LEGEND_LETTERS) for name in legend)
    abreast = max(1, int(_OVERLAY_WIDTH / (0.7 + 0.09 * widest)))  # inches per line, gaps and letter
    strip = _LEGEND_HEIGHT + _LEGEND_LINE * (math.ceil(len(legend) / abreast) - 1)
    height = panel + _TITLE_HEIGHT + strip
    figure = canvas(_OVERLAY_WIDTH, height)
    figure.set_facecolor("black")
    frame = {"left": 0.005, "right": 0.995, "bottom": strip / height, "top": 1 - _TITLE_HEIGHT / height}
    grid = figure.add_gridspec(1, len(views), width_ratios=widths, wspace=0.02, **frame)
    for column, view in enumerate(views):
        axes = figure.add_subplot(grid[0, column])
        count = voxels.shape[view.axis]
        index = count // 2 if guide is None else largest_slice(guide, view.axis)
        axes.set_title(f"{view.name}, slice {index + 1} of {count}", color="white", fontsize=10, pad=4)
        picture, pixel = _cut(voxels, view, index, head), (float(zooms[view.rows]), float(zooms[view.columns]))
        extent = (0.0, picture.shape[1] * pixel[1], picture.shape[0] * pixel[0], 0.0)  # mm
        step = math.ceil(max(picture.shape) / _LARGEST_SLICE)
        axes.imshow(picture[::step, ::step], cmap="gray", vmin=low, vmax=high, extent=extent)
        for name, mask in masks.items():
            _outline(axes, _cut(mask, view, index, head), pixel, *styles[name])
        for x, letter, side in ((0.01, view.left, "left"), (0.99, view.right, "right")):
            axes.text(x, 0.02, letter, color="white", fontsize=10, ha=side, va="bottom", transform=axes.transAxes)
        axes.set_axis_off()
    figure.suptitle(
        shortened(title, _TITLE_LETTERS), parse_math=False, color="white", fontsize=12, y=1 - 0.12 / height, va="top"
    )
    lines = [
        (shortened(name, _LEGEND_LETTERS), {"color": colour, "linewidth": 2}) for name, (colour, _) in legend.items()
    ]
    legend_below(figure, lines, abreast, "white")
    return save(figure, path)


def outlines(names: Iterable[str]) -> dict[str, tuple[str, float]]:
    """The colour of each target's outline, and its width relative to the last target's.

    Where outlines of nested regions coincide, the broader ones show on both sides.
    """
    drawn = list(enumerate(names, start=1))
    colours = itertools.cycle(_COLOURS)
    return {name: (next(colours), 1 + 0.8 * min(2, len(drawn) - number)) for number, name in drawn}


def grey_window(voxels: np.ndarray) -> tuple[float, float]:
    """The grey window from black to white: raw scans have outliers and much air around the head.

    For an extracted brain, the constant surroundings are ignored.
    """
    sample = voxels[tuple(slice(None, None, max(1, n // 64)) for n in voxels.shape)].astype(float)
    shown = sample[sample > sample.min()]
    if not shown.size or shown.min() == shown.max():
        shown = sample
    low, high = np.percentile(shown, (1, 99.7))
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1)


def bright_box(voxels: np.ndarray, low: float, high: float) -> tuple[slice, ...]:
    """Return the box of voxels brighter than air in a grey window, with a margin; air would make lesions look small."""
    bright = voxels > low + 0.15 * (high - low)
    box = []
    for axis, size in enumerate(voxels.shape):
        inside = np.flatnonzero(counts_along(bright, axis) / (bright.size // size) > 0.01)
        first, last = inside[[0, -1]] if inside.size else (0, size)
        margin = size // 50 + 1
        box.append(slice(max(0, first - margin), min(last + 1 + margin, size)))
    return tuple(box)


def largest_slice(mask: np.ndarray, axis: int) -> int:
    """The slice along an axis with the largest part of a mask."""
    return int(np.argmax(counts_along(mask, axis)))


def _cut(volume: np.ndarray, view: View, index: int, head: tuple[slice, ...]) -> np.ndarray:
    """Return one slice inside the head's box as displayed: (rows from the top, columns from the left)."""
    inside = list(head)
    inside[view.axis] = slice(index, index + 1)
    picture = volume[tuple(inside)].transpose(view.rows, view.columns, view.axis)[::-1, :, 0]
    return picture[:, ::-1] if view.flip_columns else picture


def _outline(axes: "Axes", mask: np.ndarray, pixel: tuple[float, float], colour: str, width: float) -> None:
    """Draw the edges between voxels inside and outside a mask, exactly along voxels even for thick slices."""
    from matplotlib.collections import LineCollection

    padded = np.pad(mask, 1).astype(np.int8)
    row, column = np.nonzero(np.diff(padded, axis=0)[:, 1:-1])
    flat = np.stack([column, row, column + 1, row], axis=1)
    row, column = np.nonzero(np.diff(padded, axis=1)[1:-1])
    upright = np.stack([column, row, column, row + 1], axis=1)
    lines = np.concatenate([flat, upright]).reshape(-1, 2, 2) * (pixel[1], pixel[0])
    axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=width, capstyle="projecting"))


def shortened(name: str, letters: int) -> str:
    """A name of at most this many letters, without its middle if it has more: names differ at both ends."""
    text, half = printable(name), letters // 2
    return text if len(text) <= letters else f"{text[:half]}…{text[1 - half :]}"
