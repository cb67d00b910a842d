import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from planar3d.evaluation.challenges import ALL_MEASURES
from planar3d.evaluation.charts import _draw_curves, box_plots, learning_curves
from planar3d.evaluation.published import TABLE_2
from planar3d.evaluation.scores import MEASURES

VALIDATION, PUBLISHED = (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)
SCAN = (64, 149, 197)  # a point's blue, a quarter transparent on white


def count(path, colour):
    pixels = (imread(path)[..., :3] * 255).round().astype(int)
    return np.count_nonzero(np.abs(pixels - colour).max(axis=-1) < 12)


def history(epochs, *names):
    falling = np.exp(-np.arange(1, epochs + 1) / 5)
    return {"epoch": np.arange(1, epochs + 1)} | {n: 1 - falling if "dice" in n else falling for n in names}


NAMES = ("loss", "dice", "val_loss", "val_dice")


def test_each_curve_that_is_there_is_drawn(tmp_path):
    both = learning_curves({1: history(20, *NAMES)}, tmp_path / "both.png")
    training_only = learning_curves({1: history(20, "loss", "dice")}, tmp_path / "training.png")
    undefined = {1: history(20, "loss", "dice") | dict.fromkeys(("val_loss", "val_dice"), np.full(20, np.nan))}
    assert count(both, VALIDATION) > 100 and count(training_only, VALIDATION) == 0
    assert count(learning_curves(undefined, tmp_path / "undefined.png"), VALIDATION) == 0  # in the legend neither


@pytest.mark.parametrize("folds", [2, 7])
def test_any_number_of_folds_has_room(tmp_path, folds):
    path = learning_curves({n: history(10, *NAMES) for n in range(1, folds + 1)}, tmp_path / "curves.png")
    fewer = learning_curves({n: history(10, *NAMES) for n in range(1, folds)} | {folds: {}}, tmp_path / "fewer.png")
    share = (count(path, VALIDATION) - count(fewer, VALIDATION)) / count(path, VALIDATION)
    assert share == pytest.approx(1 / folds, rel=0.25)


def test_a_fold_of_one_epoch_or_of_nothing_is_no_obstacle(tmp_path):
    histories = {1: history(1, *NAMES), 2: {}, 3: {"loss": np.array([np.nan])}}
    path = learning_curves(histories, tmp_path / "curves.png")
    empty = learning_curves({1: {}, 2: {}, 3: {}}, tmp_path / "empty.png")
    assert count(path, VALIDATION) > count(empty, VALIDATION)


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_epochs_are_whole_numbers(epochs):
    axes = Figure().subplots()
    _draw_curves(axes, "loss", history(epochs, *NAMES))
    ticks = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    assert ticks and all(tick == round(tick) for tick in ticks)


FEW = list(MEASURES)[:3]  # any are drawn, see below, and few faster


def scores(count_of_scans, value):
    return {name: [value] * count_of_scans for name in FEW}


def test_every_scan_is_a_point_and_undefined_scores_are_left_out(tmp_path):
    rng = np.random.default_rng(0)
    centers = {c: {name: list(rng.random(5)) for name in FEW} for c in ("01", "07")}
    undefined = {c: {name: [*values[:1], *[np.nan] * 4] for name, values in s.items()} for c, s in centers.items()}
    all_points = box_plots(centers, tmp_path / "all.png")
    one_point = box_plots(undefined, tmp_path / "one.png")
    assert count(all_points, SCAN) > 3 * count(one_point, SCAN)
    alone = {c: {name: values[:1] for name, values in s.items()} for c, s in centers.items()}
    # The axis tells one score of five from one of one.
    assert one_point.read_bytes() != box_plots(alone, tmp_path / "alone.png").read_bytes()


def test_any_names_of_centers_and_any_number_have_room(tmp_path):
    names = [r"not a formula: $\foo$", "a center of which the name is far longer than its box is broad", "b" * 300]
    few, many = (
        imread(box_plots({n: {measure: [0.4, 0.6] for measure in MEASURES} for n in chosen}, tmp_path / "boxes.png"))
        for chosen in (names, names + [f"center {n}" for n in range(27)])
    )
    for picture in (few, many):
        edges = np.concatenate([picture[:, :3], picture[:, -3:]], axis=1)
        assert edges.min() == picture[-3:].min() == 1  # white
    assert many.shape[1] < 1.1 * few.shape[1]


def test_published_means_are_marked_where_there_are_some(tmp_path):
    known = box_plots({"01": scores(3, 0.5)}, tmp_path / "known.png", TABLE_2)
    other = box_plots({"siteA": scores(3, 0.5)}, tmp_path / "other.png", TABLE_2)
    assert count(known, PUBLISHED) > 0
    assert count(other, PUBLISHED) == 0


@pytest.mark.parametrize("count_of_measures", [1, 3, 5])
def test_any_measures_are_drawn_and_no_others(tmp_path, count_of_measures):
    names = list(MEASURES)[:count_of_measures]
    path = box_plots({"01": {name: [0.5] for name in names}}, tmp_path / "some.png")
    one = box_plots({"01": {names[0]: [0.5]}}, tmp_path / "one.png")
    legend = box_plots({"01": {names[0]: [np.nan]}}, tmp_path / "legend.png")
    points = [count(each, SCAN) - count(legend, SCAN) for each in (path, one)]
    assert points[0] == pytest.approx(count_of_measures * points[1], rel=0.3)


def test_scores_of_a_hundred_are_within_their_axis(tmp_path):
    values = {"score": [60.0, 75.0, 90.0], "dice": [0.6, 0.75, 0.9]}
    shares, points = (
        count(box_plots({"MR": {name: of}}, tmp_path / f"{name}.png", measures=ALL_MEASURES), SCAN)
        for name, of in reversed(values.items())
    )
    assert points == pytest.approx(shares, rel=0.3)
