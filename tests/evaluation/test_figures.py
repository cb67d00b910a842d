import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from stored_scans import scan_along

from planar3d.errors import Planar3DError, ScanError
from planar3d.evaluation.charts import box_plots, learning_curves
from planar3d.evaluation.figures import outlines, overlay
from planar3d.study.planar_weights import draw_kernels
from planar3d.study.visits import _picture

# Everything but the outlines is grey; of their colours one is redder than blue, the other the reverse.
BLUE, ORANGE = -1, 1
LEGEND = 50  # rows at the bottom


def stored(voxels, axes="RAS", zooms=(1.0, 1.2, 3.0)):
    return scan_along(axes, voxels, np.diag([*zooms, 1]))


@pytest.fixture
def head():
    """A bright ellipsoid with outliers in the air, and a mask inside."""
    i, j, k = np.ogrid[-1:1:30j, -1:1:36j, -1:1:14j]
    voxels = np.where(i**2 + j**2 + k**2 < 0.8, 500 + 100 * (i + j + k), 5).astype(np.int16)
    voxels[0, 0, 0] = 30000
    mask = np.zeros(voxels.shape, np.uint8)
    mask[8:13, 20:26, 6:9] = 1
    return voxels, mask


def places(path, colour):
    """Rows and columns of the pixels of an outline, without the legend."""
    pixels = imread(path)[:-LEGEND]
    return np.nonzero(colour * (pixels[..., 0] - pixels[..., 2]) > 0.2)


def count(path, colour):
    return len(places(path, colour)[0])


def test_both_outlines_are_drawn_in_their_colours(tmp_path, head):
    voxels, mask = head
    scan = stored(voxels)
    with_both = overlay(scan, stored(np.roll(mask, 3, axis=1)), stored(mask), tmp_path / "both.png", "both")
    alone = overlay(scan, stored(mask), None, tmp_path / "alone.png", "alone")
    assert count(with_both, BLUE) > 100 and count(with_both, ORANGE) > 100
    assert count(alone, BLUE) == 0 and count(alone, ORANGE) > 100


def draw_visits(head, path):
    scan, mask = map(stored, head)
    plane = np.stack([*np.meshgrid(np.arange(30.0), np.arange(36.0)), np.full((36, 30), 20), np.ones((36, 30))])
    path.write_text(_picture([(scan, mask, np.eye(4))], plane))


DRAWINGS = {
    "overlay": lambda head, path: overlay(stored(head[0]), stored(head[1]), None, path, "a_title"),
    "curves": lambda head, path: learning_curves({1: {"loss": np.geomspace(1, 0.1, 9), "dice": np.zeros(9)}}, path),
    "boxes": lambda head, path: box_plots({"01": {"dice": [0.1, 0.5, 0.6]}}, path),
    "visits": draw_visits,
    "kernels": lambda head, path: draw_kernels(np.arange(162.0).reshape(3, 3, 3, 6), path),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_session_s_settings_of_matplotlib_neither_change_pictures_nor_are_changed(tmp_path, head, name):
    drawn = [tmp_path / "plain.png", tmp_path / "set.png"]
    DRAWINGS[name](head, drawn[0])
    with matplotlib.rc_context({"image.origin": "lower", "font.size": 7, "savefig.dpi": 50, "figure.autolayout": True}):
        DRAWINGS[name](head, drawn[1])
        assert matplotlib.rcParams["image.origin"] == "lower" and matplotlib.rcParams["font.size"] == 7
    assert drawn[0].read_bytes() == drawn[1].read_bytes()


def test_parts_are_outlined_each_in_its_own_colour(tmp_path, head):
    voxels, mask = head
    inner = np.zeros(mask.shape, bool)
    inner[8:13, 22:24, 6:9] = True
    path = overlay(stored(voxels), stored(mask), None, tmp_path / "parts.png", "parts", {"WT": mask > 0, "TC": inner})
    assert count(path, ORANGE) > count(path, BLUE) > 20
    alone = overlay(stored(voxels), stored(mask), None, tmp_path / "whole.png", "parts", {"WT": mask > 0})
    assert count(alone, BLUE) == 0 and count(alone, ORANGE) > 100


def test_title_and_legend_stay_inside_the_picture_and_every_target_has_a_colour(tmp_path, head):
    voxels, mask = head
    names = [f"organ {n} of the abdomen, $x^2$" for n in range(14)] + ["W" * 200]
    parts = {name: np.roll(mask, n, axis=1) > 0 for n, name in enumerate(names)}
    few, many = (
        imread(
            overlay(stored(voxels), stored(mask), None, tmp_path / f"{n}.png", "M" * 250, dict(list(parts.items())[:n]))
        )
        for n in (2, 15)
    )
    assert few.shape[0] < many.shape[0] and few.shape[1] == many.shape[1]
    for picture in (few, many):
        edges = np.concatenate([picture[:, :4, :3], picture[:, -4:, :3]], axis=1)
        assert edges[: int(0.3 * 120)].max() == 0 == edges[few.shape[0] - LEGEND :].max()
    assert len({colour for colour, _ in outlines(names).values()}) == 15


def test_parts_of_the_reference_lie_below_in_the_colours_of_the_prediction_s(tmp_path, head):
    voxels, mask = head
    parts = {"WT": mask > 0, "TC": np.zeros(mask.shape, bool)}
    expected = {"WT": np.roll(mask, 3, axis=1) > 0, "TC": mask > 0}
    both = overlay(stored(voxels), stored(mask), stored(mask), tmp_path / "both.png", "both", parts, expected)
    alone = overlay(stored(voxels), stored(mask), stored(mask), tmp_path / "parts.png", "both", parts)
    assert count(both, ORANGE) > 1.5 * count(alone, ORANGE) > 100
    assert count(both, BLUE) > 100 and count(alone, BLUE) == 0


def test_the_reference_stays_visible_under_an_equal_prediction(tmp_path, head):
    voxels, mask = head
    path = overlay(stored(voxels), stored(mask), stored(mask), tmp_path / "equal.png", "equal")
    assert count(path, BLUE) > 100 and count(path, ORANGE) > 100


def test_empty_masks_have_no_outline(tmp_path, head):
    voxels, mask = head
    path = overlay(stored(voxels), stored(0 * mask), stored(0 * mask), tmp_path / "empty.png", "empty")
    assert count(path, BLUE) == count(path, ORANGE) == 0


@pytest.mark.parametrize("axes", ["LPS", "LAS", "PIR", "SAL"])
def test_the_picture_does_not_depend_on_how_the_scan_is_stored(tmp_path, head, axes):
    voxels, mask = head
    there = overlay(stored(voxels), stored(mask), None, tmp_path / "ras.png", "scan")
    here = overlay(stored(voxels, axes), stored(mask, axes), None, tmp_path / "other.png", "scan")
    assert here.read_bytes() == there.read_bytes()


def test_the_slices_go_through_the_lesion(tmp_path, head):
    voxels, mask = head
    shown = overlay(stored(voxels), stored(mask), None, tmp_path / "lesion.png", "scan")
    moved = overlay(stored(voxels), stored(np.roll(mask, 9, axis=0)), None, tmp_path / "moved.png", "scan")
    assert count(moved, ORANGE) == pytest.approx(count(shown, ORANGE), rel=0.2)
    assert moved.read_bytes() != shown.read_bytes()


@pytest.mark.parametrize("axes", ["RAS", "PSR"])
def test_of_a_two_dimensional_image_only_its_plane_is_shown(tmp_path, head, axes):
    voxels, mask = (volume[..., 7:8] for volume in head)
    path = overlay(stored(voxels, axes), stored(mask, axes), None, tmp_path / "flat.png", "image")
    rows, columns = places(path, ORANGE)
    assert 30 < np.ptp(columns) < imread(path).shape[1] / 4 and np.ptp(rows) > 30  # one outline, not one a panel


def test_superior_is_up_the_face_looks_left_and_left_is_left(tmp_path, head):
    voxels, _ = head

    def outline(name, at):
        mask = np.zeros(voxels.shape, np.uint8)
        mask[at] = 1
        return places(overlay(stored(voxels), stored(mask), None, tmp_path / f"{name}.png", "scan"), ORANGE)

    middle = np.s_[13:17, 16:20, 6:8]
    superior, inferior = outline("s", np.s_[13:17, 16:20, 10:12]), outline("i", np.s_[13:17, 16:20, 2:4])
    assert superior[0].min() < outline("m", middle)[0].min() < inferior[0].min()
    # The sagittal slice is the leftmost, the coronal one the rightmost.
    anterior, posterior = outline("a", np.s_[13:17, 28:32, 6:8]), outline("p", np.s_[13:17, 4:8, 6:8])
    assert anterior[1].min() < posterior[1].min()
    left, right = outline("l", np.s_[4:8, 16:20, 6:8]), outline("r", np.s_[22:26, 16:20, 6:8])
    assert left[1].max() < right[1].max()


def test_masks_of_another_grid_are_refused(tmp_path, head):
    voxels, mask = head
    with pytest.raises(ScanError, match=r"mask has shape \(30, 36, 13\)"):
        overlay(stored(voxels), stored(mask[..., 1:]), None, tmp_path / "no.png", "scan")
    assert not (tmp_path / "no.png").exists()


def test_a_scan_without_any_contrast_is_still_drawn(tmp_path, head):
    scan = replace(stored(head[0]), voxels=np.zeros(head[0].shape))
    assert overlay(scan, stored(head[1]), None, tmp_path / "flat.png", "flat").stat().st_size > 1000


def test_without_matplotlib_the_extra_is_named(tmp_path, head, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(Planar3DError, match=r"pip install 'planar3d\[study\]'"):
        overlay(stored(head[0]), stored(head[1]), None, tmp_path / "no.png", "scan")
