"""Losses are those of the papers: cross-entropy minus Dice plus one, Dice by channel, and both."""

import itertools
from contextlib import nullcontext
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from planar3d.errors import RecipeError
from planar3d.recipes import RECIPES
from planar3d.training.losses import LOSSES, BceMinusDice, CrossEntropyAndDice, MultipleDice, soft_dice


@pytest.mark.parametrize(("activation", "refused"), [("sigmoid", {1, 2, 3}), ("softmax", set())])
def test_losses_that_need_exactly_one_class_are_refused_without_a_softmax_alone(activation, refused):
    targets = next(recipe.targets for recipe in RECIPES.values() if recipe.targets.activation == activation)
    losses = [MultipleDice(), MultipleDice("foreground"), CrossEntropyAndDice("foreground")]
    losses += [CrossEntropyAndDice(cross_entropy="categorical"), CrossEntropyAndDice()]
    for number, loss in enumerate(losses):
        with pytest.raises(RecipeError, match="exactly one class") if number in refused else nullcontext():
            loss.check_with(targets)


def test_dice_of_binary_masks_is_equation_4():
    x, y = np.float32([1, 1, 0, 0, 1]), np.float32([1, 0, 0, 1, 1])
    assert float(soft_dice(x, y)) == pytest.approx(2 * 2 / (3 + 3))


def test_smoothing_is_the_released_code_s():
    assert float(soft_dice(np.zeros(4), np.zeros(4), 1.0)) == 1
    assert float(soft_dice(np.zeros(4), np.zeros(4), 0.0)) == 0
    x = np.float32([1, 0])
    assert float(soft_dice(x, x, 1.0)) == pytest.approx((2 + 1) / (2 + 1))


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_the_loss_is_equation_5_over_the_whole_batch(smoothing):
    rng = np.random.default_rng(0)
    y = (rng.random((2, 4, 4, 4, 1)) > 0.7).astype(np.float32)
    p = rng.uniform(0.05, 0.95, y.shape).astype(np.float32)
    cross_entropy = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    dice = (2 * np.sum(y * p) + smoothing) / (np.sum(y) + np.sum(p) + smoothing)
    assert float(BceMinusDice(smoothing)(y, p)) == pytest.approx(cross_entropy - dice + 1, rel=1e-5)


def test_the_loss_is_finite_at_certainty():
    zeros, ones = np.zeros((1, 2, 2, 2, 1), np.float32), np.ones((1, 2, 2, 2, 1), np.float32)
    for y in (zeros, ones):
        for p in (zeros, ones):
            assert np.isfinite(float(BceMinusDice()(y, p)))


DICES = [
    {"dice_of": dice_of, "over": over, "denominator": denominator, "dice_smoothing": smoothing}
    for dice_of, over, denominator, smoothing in itertools.product(
        ("all", "foreground"), ("batch", "sample"), ("sums", "squares"), (0.0, 1.5)
    )
]


def one_hot_and_softmax(seed=0):
    """Three samples of three classes, one of which the first sample does not have; and probabilities."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (3, 2, 3, 2))
    labels[0][labels[0] == 2] = 0
    return np.eye(3)[labels], rng.dirichlet(np.ones(3), labels.shape) * 0.98 + 0.02 / 3


RELEASED = {"dice_of": "all", "over": "batch", "denominator": "sums", "dice_smoothing": 0.0}  # of Wacker 2019


def written_out(r, p, dice_of, over, denominator, dice_smoothing, denominator_smoothing=0.0, cross_entropy=None):
    """The loss in float64, sum by sum."""
    samples = [(r, p)] if over == "batch" else list(zip(r[:, None], p[:, None], strict=True))
    power = 2 if denominator == "squares" else 1
    dices = []
    for r_of, p_of in samples:
        for channel in range(dice_of == "foreground", r.shape[-1]):
            r_l, p_l = r_of[..., channel].ravel(), p_of[..., channel].ravel()
            either = sum(a**power + b**power for a, b in zip(r_l, p_l, strict=True))
            dices.append((2 * sum(r_l * p_l) + dice_smoothing) / (either + dice_smoothing + denominator_smoothing))
    loss = 1 - np.mean(dices)
    if cross_entropy == "binary":
        loss += np.mean([-np.log(b) if a else -np.log(1 - b) for a, b in zip(r.ravel(), p.ravel(), strict=True)])
    if cross_entropy == "categorical":
        by_class = p / p.sum(-1, keepdims=True)
        loss += np.mean([-np.log(b[a == 1]) for a, b in zip(r.reshape(-1, 3), by_class.reshape(-1, 3), strict=True)])
    return loss


def assert_loss_and_gradient_are(loss, expected, r, p):
    """The value, and the gradient by central differences of the expected value."""
    with tf.GradientTape() as tape:
        given = tf.constant(p, tf.float32)
        tape.watch(given)
        value = loss(r, given)
    assert float(value) == pytest.approx(expected(r, p), rel=1e-5)
    gradient = tape.gradient(value, given).numpy()
    for place in itertools.islice(np.ndindex(p.shape), 0, None, 5):
        step = np.zeros(p.shape)
        step[place] = 1e-5
        difference = (expected(r, p + step) - expected(r, p - step)) / 2e-5
        assert gradient[place] == pytest.approx(difference, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("fields", [*DICES, *({**RELEASED, "denominator_smoothing": d} for d in (1e-15, 3.0))], ids=str)
def test_multiple_dice_is_the_equation_and_so_is_its_gradient(fields):
    assert_loss_and_gradient_are(MultipleDice(**fields), partial(written_out, **fields), *one_hot_and_softmax())


@pytest.mark.parametrize("kind", ["binary", "categorical"])
@pytest.mark.parametrize("fields", [DICES[0], DICES[-1], {**DICES[0], "denominator": "squares"}], ids=str)
def test_cross_entropy_and_dice_are_added(kind, fields):
    loss = CrossEntropyAndDice(**fields, cross_entropy=kind)
    assert_loss_and_gradient_are(loss, partial(written_out, **fields, cross_entropy=kind), *one_hot_and_softmax(1))


def test_a_hand_made_case_of_three_classes_is_equation_2_of_wacker():
    r, p = np.eye(3)[[[0, 1, 2, 2]]], np.eye(3)[[[0, 1, 1, 2]]]
    assert float(MultipleDice("foreground")(r, p)) == pytest.approx(1 - (2 / 3 + 2 / 3) / 2)
    assert float(MultipleDice()(r, p)) == pytest.approx(1 - (1 + 2 / 3 + 2 / 3) / 3)


def test_of_one_channel_the_sum_is_the_loss_of_kolarik():
    rng = np.random.default_rng(2)
    y, p = (rng.random((2, 4, 5, 6, 1)) > 0.8).astype(np.float32), rng.uniform(0.01, 0.99, (2, 4, 5, 6, 1))
    for smoothing in (0.0, 1.0):
        expected = float(BceMinusDice(smoothing)(y, np.float32(p)))
        assert float(CrossEntropyAndDice(dice_smoothing=smoothing)(y, np.float32(p))) == pytest.approx(
            expected, rel=1e-5
        )


@pytest.mark.parametrize(
    "fields",
    [{}, {"over": "sample"}, {"denominator": "squares"}, {"dice_smoothing": 1.0}, {"denominator_smoothing": 1e-15}],
    ids=str,
)
@pytest.mark.parametrize("name", ["multiple-dice", "ce-and-dice"])
def test_losses_and_gradients_are_finite_for_empty_and_full_masks(name, fields):
    loss = LOSSES[name](**fields)
    empty, full = np.zeros((2, 3, 3, 3, 2), np.float32), np.ones((2, 3, 3, 3, 2), np.float32)
    for r, p in itertools.product((empty, full), (empty, full, full / 2)):
        with tf.GradientTape() as tape:
            given = tf.constant(p)
            tape.watch(given)
            value = loss(r, given)
        assert np.isfinite(float(value)) and np.isfinite(tape.gradient(value, given).numpy()).all()


@pytest.mark.parametrize("name", LOSSES)
def test_sums_that_half_precision_could_not_hold_are_right(name):
    r = np.zeros((1, 70, 40, 40, 1), np.uint8)
    r[:, :60] = 1
    p = tf.cast(np.where(r, 0.875, 0.125), "float16")
    expected = 1 - 2 * 0.875 * 96_000 / (96_000 + 0.875 * 96_000 + 0.125 * 16_000)
    expected += 0 if name == "multiple-dice" else -np.log(0.875)
    value = LOSSES[name]()(r, p)
    assert value.dtype == "float32" and float(value) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_a_network_learns_by_each_loss(name):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((4, 4, 4, 2)), keras.layers.Conv3D(3, 1, activation="softmax")])
    network.compile(keras.optimizers.Adam(0.1), loss=LOSSES[name](), metrics=[MultipleDice("foreground").dice])
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 4, 2)).astype(np.float32)
    y = np.eye(3, dtype=np.uint8)[np.where(x[..., 0] > 0.5, 2, np.where(x[..., 1] > 0, 1, 0))]
    logs = [network.train_on_batch(x, y, return_dict=True) for _ in range(60)]
    assert set(logs[0]) == {"loss", "dice"}
    assert logs[-1]["loss"] < 0.7 * logs[0]["loss"] and logs[-1]["dice"] > logs[0]["dice"] + 0.2


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("masks", [(2, 4, 4, 4), (1, 4, 4, 4, 3), (2, 4, 4, 4, 1)], ids=["volumes", "batch", "labels"])
def test_masks_of_another_shape_than_the_probabilities_are_refused(name, masks):
    """Some would be broadcast, and give a loss of something else."""
    with pytest.raises(ValueError, match=r"masks have the shape .* probabilities \(2, 4, 4, 4, 3\)"):
        LOSSES[name]()(np.ones(masks), np.full((2, 4, 4, 4, 3), 0.5))


@pytest.mark.parametrize("name", LOSSES)
def test_a_network_is_saved_with_the_loss_that_it_was_compiled_with(name, tmp_path):
    network = keras.Sequential([keras.Input((2, 2, 2, 2)), keras.layers.Dense(2, activation="softmax")])
    network.compile("sgd", LOSSES[name](dice_smoothing=0.5))
    network.save(tmp_path / "compiled.keras")
    assert keras.saving.load_model(tmp_path / "compiled.keras").loss == LOSSES[name](dice_smoothing=0.5)
