"""Labels become channels and come back, and what is scored are the regions that the labels mean."""

import dataclasses
import json
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from planar3d.errors import RecipeError, ScanError
from planar3d.scans.targets import TARGETS, Binary, Classes, Regions
from planar3d.scans.volume import read_scan

BRATS = ("WT=1+2+4", "TC=1+4", "ET=4")
TUMOR = Classes(("NCR=1", "ED=2", "ET=4"), BRATS)
SPACING = (1, 1, 1)


def nested_tumor():
    """A label map of three balls within one another: edema 2, necrosis 1, enhancing 4."""
    distance = np.linalg.norm(np.indices((12, 14, 16)) - np.array([6, 7, 8])[:, None, None, None], axis=0)
    return np.select([distance < 2, distance < 3.5, distance < 5], [4, 1, 2], 0).astype(np.uint8)


@pytest.mark.parametrize("targets", [TUMOR, Regions()])
def test_a_tumor_comes_back_as_it_was_and_is_scored_by_its_regions(targets):
    labels = nested_tumor()
    encoded = targets.encode(labels)
    assert encoded.dtype == np.uint8 and encoded.shape == (12, 14, 16, targets.outputs)
    decoded = targets.decode(encoded.astype(np.float32), SPACING)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, labels)
    masks = targets.masks(labels)
    assert targets.names == tuple(masks) == ("WT", "TC", "ET")
    for name, values in {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}.items():
        np.testing.assert_array_equal(masks[name], np.isin(labels, values))


@pytest.mark.real
@pytest.mark.parametrize("targets", [TUMOR, Regions()])
def test_the_label_map_of_a_patient_comes_back(real_data, targets):
    path = real_data / "data/brats/BraTS2021_00006/BraTS2021_00006_seg.nii.gz"
    labels = read_scan(path).voxels[60:140, 60:140, 40:120]
    targets.check_labels(labels, path.name)
    assert set(np.unique(labels)) == {0, 1, 2, 4}
    np.testing.assert_array_equal(targets.decode(targets.encode(labels).astype(np.float32), SPACING), labels)


def test_classes_are_one_hot_and_the_most_probable_one_is_written():
    encoded = TUMOR.encode(np.array([[0, 1, 2, 4]]))
    np.testing.assert_array_equal(encoded[0], np.eye(4))
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), (3, 4, 5)).astype(np.float32)
    decoded = TUMOR.decode(probabilities, SPACING)
    for place in np.ndindex(decoded.shape):
        most = max(range(4), key=lambda number: probabilities[place][number])
        assert decoded[place] == (0, 1, 2, 4)[most]
    assert not TUMOR.decode(np.full((1, 1, 1, 4), 0.25, np.float32), SPACING).any()


def test_regions_are_written_over_one_another():
    """What is enhancing stays, necrosis is the core without it, edema the whole without the core (Messaoudi 2023)."""
    probabilities = np.random.default_rng(1).random((4, 5, 6, 3)).astype(np.float32)
    whole, core, enhancing = np.moveaxis(probabilities > 0.5, -1, 0)
    decoded = Regions().decode(probabilities, SPACING)
    np.testing.assert_array_equal(decoded == 4, enhancing)
    np.testing.assert_array_equal(decoded == 1, core & ~enhancing)
    np.testing.assert_array_equal(decoded == 2, whole & ~core & ~enhancing)
    assert not Regions().decode(np.full((1, 1, 1, 3), 0.5, np.float32), SPACING).any()


@pytest.mark.parametrize(
    ("grid", "voxel"), [((1, 1, 1), 1.0), ((0.7, 0.7, 0.7), 0.343), ([[2, 1, 0], [0, 2, 0], [0, 0, 2]], 8.0)]
)
@pytest.mark.parametrize(("label", "rest"), [(4, 1), (3, 1)])
def test_an_enhancing_tumor_of_the_smallest_volume_stays_and_a_smaller_one_is_necrosis(grid, voxel, label, rest):
    labels = np.where(nested_tumor() == 4, label, nested_tumor())
    count = np.count_nonzero(labels == label)
    regions = (f"WT=1+2+{label}", f"TC=1+{label}", f"ET={label}")
    grid = np.asarray(grid, np.float32)
    for smallest, becomes in ((count * voxel, label), (count * voxel * 1.01, rest)):
        targets = Regions(regions, (2, 1, label), smallest)
        decoded = targets.decode(targets.encode(labels).astype(np.float32), grid)
        np.testing.assert_array_equal(decoded, np.where(labels == label, becomes, labels))


def flooded(mask):
    """The sizes of the components over faces, by voxel, counted without scipy."""
    sizes, left = np.zeros(mask.shape, int), set(map(tuple, np.argwhere(mask)))
    while left:
        component, edge = set(), [left.pop()]
        while edge:
            voxel = edge.pop()
            component.add(voxel)
            for step in np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)]):
                if (near := tuple(np.add(voxel, step).tolist())) in left:
                    left.remove(near)
                    edge.append(near)
        for voxel in component:
            sizes[voxel] = len(component)
    return sizes


@pytest.mark.parametrize("rule", ["absolute", "released"])
def test_lesions_are_above_the_threshold_and_large_enough(rule):
    probabilities = np.random.default_rng(2).random((7, 8, 9, 1)).astype(np.float32) * np.float32(0.8)
    probabilities[2:4] *= np.float32(0.7)
    targets = Binary(140.0, rule, smallest_lesion_mm3=4 * 1.5)
    levels = (probabilities[..., 0] * np.float32(255)).astype(int)
    above = probabilities[..., 0] * 256 > 140 if rule == "absolute" else levels > levels.max() // (256 / 140)
    expected = flooded(above) >= 4
    assert 0 < expected.sum() < above.sum()
    mask = targets.decode(probabilities, (1, 1, 1.5))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected)
    part = targets.assign(probabilities[2:4], float(probabilities.max()))
    np.testing.assert_array_equal(part, targets.assign(probabilities)[2:4])


def test_lesions_whose_mean_probability_is_too_low_are_dropped_whole():
    probabilities = np.random.default_rng(3).uniform(0.3, 0.9, (7, 8, 9, 1)).astype(np.float32)
    probabilities[:, ::3] = probabilities[3] = 0
    probabilities[:3] *= np.float32(0.6)
    above = probabilities[..., 0] > 0.25
    lesions, count = ndimage.label(above)
    means = [probabilities[lesions == number].mean() for number in range(1, count + 1)]
    kept = [number for number, mean in enumerate(means, start=1) if mean >= 0.5]
    assert 1 < len(kept) < count
    mask = Binary(64.0, least_mean=128.0).decode(probabilities, (1, 1, 1))
    np.testing.assert_array_equal(mask, np.isin(lesions, kept))
    np.testing.assert_array_equal(Binary(64.0, least_mean=64.0).decode(probabilities, (1, 1, 1)), above)
    assert not Binary(64.0, least_mean=256.0).decode(probabilities, (1, 1, 1)).any()


def test_encoded_maps_can_be_interpolated_where_labels_would_invent_others():
    labels = np.where(nested_tumor() > 0, 4, 0).astype(np.uint8)
    moved = ndimage.shift(labels.astype(float), (0.5, 0, 0), order=1)
    assert 2 in moved
    encoded = Regions().encode(labels).astype(np.float32)
    decoded = Regions().decode(ndimage.shift(encoded, (0.5, 0, 0, 0), order=1), SPACING)
    assert set(np.unique(decoded)) == {0, 4}


def test_labels_of_the_targets_are_known_and_others_are_refused():
    Regions().check_labels(np.array([[0, 1, 4]]), "seg.nii.gz")
    np.testing.assert_array_equal(Regions().encode(np.float32([[1.0000001]])), [[[1, 1, 0]]])
    with pytest.raises(ScanError, match=r"seg.nii.gz has the labels 0, 1, 3; .* have 0, 1, 2, 4 \(WT=1\+2\+4, TC="):
        Regions().check_labels(np.array([[0, 1], [1, 3]]), "seg.nii.gz")
    with pytest.raises(ScanError, match=r"has the labels 0, 255; the targets have 0, 1 \(lesion=1\)"):
        Binary().check_labels(np.array([[0, 255]]), "seg.nii.gz")
    with pytest.raises(ScanError, match=r"(\d+, ){6}…;"):
        TUMOR.check_labels(np.arange(27).reshape(3, 3, 3), "flair.nii.gz")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Binary(257), "from 0 to 256"),
        (lambda: Binary(threshold_rule="best"), "choose one of"),
        (lambda: Binary(smallest_lesion_mm3=-1), "must not be negative"),
        (lambda: Binary(least_mean=257), "a threshold from 0 to 256"),
        (lambda: Binary(threshold=0.5), r"threshold is 0\.5, .*but not between 0 and 1 \(128 is"),
        (lambda: Classes(()), "a unique name and labels from 1 to 255"),
        (lambda: Classes(("a=1", "a=2")), "a unique name"),
        (lambda: Classes(("a=1", "b=1")), "its own label"),
        (lambda: Classes(("a=1+2",)), "its own label"),
        (lambda: Classes(("a=1",), ("b=1+2",)), "no class has the label 2"),
        (lambda: Regions(("WT",), (1,)), "regions='WT'"),
        (lambda: Regions(("WT=0+1",), (1,)), "from 1 to 255"),
        (lambda: Regions(("WT=1+256",), (1,)), "from 1 to 255"),
        (lambda: Regions(("WT=²",), (1,)), "from 1 to 255"),
        (lambda: Regions(BRATS, (2, 1)), "one label from 1 to 255 is needed for each"),
        (lambda: Regions(BRATS, (1, 2, 4)), "label 1 would be written as 2"),
        (lambda: Regions(BRATS[::-1], (4, 1, 2)), "label 1 would be written as 2"),
        (lambda: Regions(smallest_innermost_mm3=-1), "must not be negative"),
        # The cavity after treatment, which is in no other region, would become enhancing tumour.
        (lambda: Regions((*BRATS, "RC=5"), (2, 1, 4, 5), 20), "relabels the last region as the one before it"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(make, sentence):
    with pytest.raises(RecipeError, match=sentence):
        make()


@pytest.mark.parametrize("targets", [Binary(), TUMOR, Regions()])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3.0, -2.0])
def test_values_that_are_no_probabilities_are_refused(targets, value):
    outputs = np.full((2, 3, 3, targets.outputs), 0.2, np.float32)
    outputs[1, 2, 0, 0] = value
    with pytest.raises(ValueError, match="numbers from 0 to 1"):
        targets.decode(outputs, SPACING)


@pytest.mark.parametrize("targets", [Binary(32, "released", 20), TUMOR, Regions(smallest_innermost_mm3=200)])
def test_fields_are_plain_values_that_json_and_the_command_line_can_hold(targets):
    fields = json.loads(json.dumps(dataclasses.asdict(targets)))
    made = TARGETS[targets.name]
    assert made(**fields) == targets
    assert made(**{k: ",".join(map(str, v)) if isinstance(v, list) else str(v) for k, v in fields.items()}) == targets


@pytest.mark.parametrize("targets", [Binary(smallest_lesion_mm3=3), TUMOR, Regions(smallest_innermost_mm3=3)])
def test_no_copy_of_a_volume_is_wider_than_the_network_s_output(targets):
    shape = (48, 48, 48)
    labels, probabilities = np.zeros(shape, np.uint8), np.zeros((*shape, targets.outputs), np.float32)
    labels[4:9, 4:9, 4:9] = 1
    probabilities[4:9, 4:9, 4:9, -1] = 1
    for call in (lambda: targets.encode(labels), lambda: targets.decode(probabilities, SPACING)):
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < labels.size * (targets.outputs + 5)


def test_the_foreground_is_whatever_is_scored():
    p = np.random.default_rng(0).dirichlet(np.ones(3), (2, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(Classes(("a=1", "b=2")).foreground(p), p[..., 1] + p[..., 2], atol=1e-6)
    p = np.random.default_rng(0).random((2, 3, 4, 3), np.float32)  # an inner region may be more probable than an outer
    regions = Regions(BRATS)
    np.testing.assert_array_equal(regions.foreground(p) > 0.5, regions.assign(p) > 0)
    np.testing.assert_array_equal(Binary().foreground(p[..., 0]), p[..., 0])


@pytest.mark.parametrize("targets", [Binary(), Regions(), Classes(classes=("a=1", "b=2"))], ids=lambda t: t.name)
def test_an_untrained_output_gives_each_target_its_prior(targets):
    logits = targets.output_bias(0.1).astype(float)
    if targets.activation == "sigmoid":
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), np.full(targets.outputs, 0.1), rtol=1e-6)
    else:  # each class against the background
        odds = np.exp(logits) / np.exp(logits[0])
        np.testing.assert_allclose(odds, [1, 1 / 9, 1 / 9], rtol=1e-6)
