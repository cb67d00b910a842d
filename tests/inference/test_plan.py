"""A plan computes no slice that the composition does not need."""

import keras
import numpy as np
import pytest
from inference_networks import small_unet
from keras import layers

from planar3d.graph.described import described, layer_costs
from planar3d.graph.reach import Reach
from planar3d.inference.plan import _demand, _piece, describe_work, make_plan
from planar3d.networks.planar_resunet import PlanarResUNet
from planar3d.networks.vgg16 import PlanarVGG16
from planar3d.recipes import PAPER


@pytest.fixture(scope="module")
def full_size():
    return PlanarResUNet(encoder_weights=None)


def test_a_scan_costs_what_sharing_and_trimming_leave(full_size) -> None:
    windowed = 31 * sum(cost.macs for cost in layer_costs(full_size))
    shared, split = (make_plan(described(full_size), 8, exact).macs(31) for exact in (True, False))
    assert windowed / shared == pytest.approx(1.44, abs=0.01)
    assert windowed / split == pytest.approx(1.68, abs=0.01)


@pytest.mark.parametrize("exact, of_two, of_one", [(True, 690, 502), (False, 577, 466)])
def test_one_piece_a_window_spares_what_two_would_compute_twice(full_size, exact, of_two, of_one) -> None:
    plan = make_plan(described(full_size), 4, exact)
    first, middle, last, whole = plan.windows.values()
    assert plan.pieces(2) == [first, last]  # of 20 slices, kept 0 to 10 and 6 to 16
    shared = {plan.shared.inputs[0][0], *plan.shared.nodes}
    graph, output = [*shared, *whole.nodes], whole.outputs[0]
    outer = [_piece(graph, shared, _demand(graph, shared, output, kept), output) for kept in ((0, 6), (10, 16))]
    apart = plan.macs(2) + sum(piece.macs() for piece in (middle, middle, *outer)) - first.macs() - last.macs()
    assert 1e-9 * np.array([apart, plan.macs(2)]) == pytest.approx([of_two, of_one], abs=1)


def test_the_work_of_a_scan_is_said_where_windows_share(full_size) -> None:
    assert "14.4 TFLOP bit for bit, 12.4 TFLOP" in describe_work(described(full_size), PAPER)
    assert describe_work(described(PlanarVGG16(weights=None)), PAPER) == ""


def test_an_inner_window_needs_the_slices_that_its_middle_depends_on(full_size) -> None:
    needed = {node.name: ends for node, ends in make_plan(described(full_size), 8).windows["middle"].nodes.items()}
    assert needed["conv10"] == needed["conv92"] == (4, 12)
    assert needed["conv91"] == (3, 13)
    assert needed["up9"] == needed["trans9"] == (2, 14)
    assert needed["conv82"] == (1, 7)
    assert needed["conv81"] == (0, 8)


def test_blocks_1_to_4_are_shared_and_the_fourth_pooling_is_not(full_size) -> None:
    plan = make_plan(described(full_size), 8)
    names = ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3"]
    assert [node.name for node in plan.shared.outputs] == names
    assert "block4_pool" in {node.name for node in plan.windows["middle"].nodes}


@pytest.mark.parametrize("stride", [4, 8])
def test_no_more_than_a_window_and_the_next_stride_is_held(full_size, stride: int) -> None:
    plan = make_plan(described(full_size), stride)
    for node in plan.shared.outputs:
        assert stride < plan.capacity(node) * node.slices_per_entry <= plan.depth + stride


def test_at_a_stride_of_whole_windows_the_bridge_is_shared_too(full_size) -> None:
    assert "conv52" in {node.name for node in make_plan(described(full_size), 16).shared.nodes}


@pytest.mark.parametrize("groups, roles", [(1, {"part", "sum"}), (2, {"layer"})])
def test_a_convolution_over_shared_and_other_channels_is_split_unless_it_is_in_groups(groups: int, roles: set) -> None:
    window = keras.Input((16, 8, 8, 2))
    joined = layers.Concatenate()([window, layers.Conv3D(2, (3, 1, 1), padding="same")(layers.ReLU()(window))])
    network = keras.Model(window, layers.Conv3D(2, (1, 3, 3), padding="same", groups=groups, name="last")(joined))
    plan = make_plan(described(network), 8, exact=False)
    assert {node.role for piece in plan.windows.values() for node in piece.nodes if node.name == "last"} == roles


def test_windows_at_odd_starts_share_only_what_no_pooling_of_depth_has_joined() -> None:
    plan = make_plan(described(small_unet(depth=8, levels=3)), 2)
    assert max(node.slices_per_entry for node in plan.shared.nodes) == 2


@pytest.mark.parametrize(
    "reach, wanted, needed, padding",
    [
        (Reach(extent=3, before=1, after=1), (0, 4), (0, 5), (1, 0)),
        (Reach(extent=3, before=1, after=1), (3, 8), (2, 8), (0, 1)),
        (Reach(extent=2, after=1), (0, 8), (0, 8), (0, 1)),
        (Reach(extent=5, before=2, after=2), (3, 4), (1, 6), (0, 0)),
        (Reach(extent=2, stride=2), (1, 3), (2, 6), (0, 0)),
        (Reach(before=-1, after=1), (0, 8), (1, 8), (0, 1)),
        (Reach(before=9, after=-9), (2, 6), (0, 0), (4, 0)),
        (Reach(before=-7, after=7), (2, 6), (8, 8), (0, 4)),
    ],
)
def test_reach_along_depth(reach: Reach, wanted, needed, padding) -> None:
    assert reach.needs(*wanted, length=8) == needed
    assert reach.padding(*wanted, length=8) == padding
