"""Optimizers take the steps of their papers, and go on exactly where a checkpoint left them."""

import subprocess
import sys
from dataclasses import astuple

import keras
import numpy as np
import pytest

from planar3d.training.checkpoint import TrainingProgress, restore, save
from planar3d.training.losses import CrossEntropyAndDice
from planar3d.training.schedules import Exponential
from planar3d.training.settings import OPTIMIZERS, Adam, Nadam

STEPS = 14
NADAMS = {
    "dozat": Nadam(epsilon=1e-8),
    "keras": Nadam(momentum_decay=1.0),
    "messaoudi2023": Nadam(0.95, 0.99, 1e-5, gradient_share="beta_1"),
}


def gradients():
    return np.random.default_rng(0).normal(size=(STEPS, 2, 3)) * np.array([1e-3, 1, 50])


def followed(optimizer, along=None):
    """A variable after each step along the gradients."""
    variable = keras.Variable(np.ones((2, 3)), dtype="float32")
    optimizer.build([variable])
    places = []
    for gradient in gradients() if along is None else along:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [variable])
        places.append(variable.numpy())
    return np.array(places)


def written_out(settings, rate):
    """Nadam as Dozat's algorithm 2 and torch's documentation have it, in float64; or Adam."""
    beta_1, beta_2, epsilon = astuple(settings)[:3]
    place, first, second, product, places = np.ones((2, 3)), 0, 0, 1, []

    def momentum(t):
        return beta_1 * (1 - 0.5 * 0.96 ** (t * settings.momentum_decay))

    for t, gradient in enumerate(gradients(), start=1):
        first = beta_1 * first + (1 - beta_1) * gradient
        second = beta_2 * second + (1 - beta_2) * gradient**2
        if isinstance(settings, Nadam):
            product *= momentum(t)
            share = 1 - beta_1 if settings.gradient_share == "beta_1" else 1 - momentum(t)
            ahead = share * gradient / (1 - product) + momentum(t + 1) * first / (1 - product * momentum(t + 1))
            place = place - rate * ahead / (np.sqrt(second / (1 - beta_2**t)) + epsilon)
        else:  # Keras has the epsilon of Kingma & Ba's section 2, beside the root that is not corrected
            corrected = np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
            place = place - rate * corrected * first / (np.sqrt(second) + epsilon)
        places.append(place)
    return np.array(places)


@pytest.mark.parametrize("settings", [*NADAMS.values(), Adam(0.8, 0.95, 1e-6)], ids=[*NADAMS, "adam"])
def test_steps_are_those_of_the_paper(settings):
    np.testing.assert_allclose(followed(settings.make(0.01)), written_out(settings, 0.01), rtol=2e-5)


def test_keras_own_steps_are_taken_with_its_momentum():
    expected = followed(keras.optimizers.Nadam(0.01))
    np.testing.assert_allclose(followed(NADAMS["keras"].make(0.01)), expected, rtol=1e-5)
    assert np.abs(followed(NADAMS["dozat"].make(0.01)) - expected).max() > 1e-3
    np.testing.assert_array_equal(followed(Adam().make(0.01)), followed(keras.optimizers.Adam(0.01)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_step_builds_an_optimizer_that_nothing_has_built(name):
    places = []
    for build in (True, False):
        variable, optimizer = keras.Variable(np.ones((2, 3)), dtype="float32"), OPTIMIZERS[name]().make(0.01)
        if build:
            optimizer.build([variable])
        for gradient in gradients()[:6]:
            optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [variable])
        places.append(variable.numpy())
    np.testing.assert_array_equal(*places)


def test_keras_own_training_builds_the_slow_weights_as_the_first_fast_ones():
    network = compiled(Adam(lookahead_steps=9), build=False)
    first = [weight.numpy() for weight in network.trainable_variables]
    x = np.random.default_rng(0).normal(size=(4, 4, 4, 4, 2)).astype(np.float32)
    network.fit(x, (x > 0.3).astype(np.uint8), batch_size=2, verbose=0)
    for weight, slow in zip(first, network.optimizer.slow, strict=True):
        np.testing.assert_array_equal(slow.numpy(), weight)
    assert np.abs(network.trainable_variables[0].numpy() - first[0]).max() > 1e-3


@pytest.mark.parametrize(("steps", "share"), [(6, 0.5), (3, 0.25)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slow_weights_go_a_share_of_the_way_and_the_fast_ones_go_on_from_there(name, steps, share):
    """The inner optimizer, whose moments the slow weights do not touch, moves the same way from wherever it is."""
    moves = np.diff(followed(OPTIMIZERS[name]().make(0.01)), axis=0, prepend=np.ones((1, 2, 3)))
    slow = fast = np.ones((2, 3))
    expected = []
    for step, move in enumerate(moves, start=1):
        fast = fast + move
        if step % steps == 0:
            slow = fast = slow + share * (fast - slow)
        expected.append(fast)
    made = OPTIMIZERS[name](lookahead_steps=steps, lookahead_share=share).make(0.01)
    np.testing.assert_allclose(followed(made), expected, rtol=1e-5)
    np.testing.assert_allclose(made.slow[0].numpy(), slow, rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_are_clipped_by_the_norm_of_all(name):
    clipped = followed(OPTIMIZERS[name](clip_norm=2.0).make(0.1))
    shortened = gradients() * np.minimum(1, 2 / np.linalg.norm(gradients(), axis=(1, 2), keepdims=True))
    np.testing.assert_allclose(clipped, followed(OPTIMIZERS[name]().make(0.1), shortened), rtol=1e-4)
    assert np.abs(clipped - followed(OPTIMIZERS[name]().make(0.1))).max() > 0.01


def compiled(settings, precision="float32", build=True):
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((4, 4, 4, 2)),
            keras.layers.Conv3D(3, 3, padding="same", name="conv1"),
            keras.layers.BatchNormalization(name="norm1"),
            keras.layers.Conv3D(2, 1, activation="sigmoid", name="conv2"),
        ],
        name="network",
    )
    optimizer = settings.make(0.01)
    if precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    network.compile(optimizer, CrossEntropyAndDice())
    if build:
        network.optimizer.build(network.trainable_variables)
    return network


def train(network, steps):
    for step in steps:
        rng = np.random.default_rng(step)
        x = rng.normal(size=(2, 4, 4, 4, 2)).astype(np.float32)
        network.train_on_batch(x, (x > 0.3).astype(np.uint8))
    return network.get_weights()


@pytest.mark.parametrize(("name", "precision"), [("adam", "float32"), ("nadam", "float16")])
def test_a_training_that_was_stopped_between_two_slow_steps_goes_on_exactly(tmp_path, name, precision, untraced):
    settings = OPTIMIZERS[name](lookahead_steps=4)
    expected = train(compiled(settings, precision), range(10))
    stopped = compiled(settings, precision)
    train(stopped, range(6))
    save(tmp_path, stopped, stopped.optimizer, TrainingProgress(epoch=1))
    # Another process would have built other things before, which Keras counts in the names of what has none.
    keras.Variable(0.0), OPTIMIZERS[name]().make(0.1)
    resumed = compiled(settings, precision)
    resumed.set_weights([np.zeros_like(weight) for weight in resumed.get_weights()])
    restore(tmp_path, resumed, resumed.optimizer)
    for weight, other in zip(train(resumed, range(6, 10)), expected, strict=True):
        np.testing.assert_array_equal(weight, other)
    with np.load(next(tmp_path.rglob("*.npz"))) as kept:
        assert sum(name.endswith("_slow") for name in kept.files) == 6


def test_the_rate_of_lookahead_is_that_of_the_optimizer_within():
    made = Adam(lookahead_steps=6).make(0.5)
    made.learning_rate = 0.25
    assert float(made.learning_rate.numpy()) == float(made.inner.learning_rate.numpy()) == 0.25
    schedule = keras.optimizers.schedules.InverseTimeDecay(1.0, 1, 1.0)
    made = Adam(lookahead_steps=6).make(schedule)
    followed(made)
    assert float(made.learning_rate) == pytest.approx(1 / (1 + STEPS))


_LOAD = """
import sys
import numpy as np
from planar3d.quiet_tensorflow import quiet_tensorflow
quiet_tensorflow()
import keras
import planar3d.training.optimizers
network = keras.saving.load_model(sys.argv[1])
network.fit(np.eye(4), np.eye(4)[:, :2], verbose=0)
np.save(sys.argv[2], network.get_weights()[0])
"""


def test_a_network_that_was_saved_with_them_and_a_recipe_s_loss_is_loaded_and_trains_on(tmp_path):
    inputs, chosen = keras.Input((4,)), Nadam(beta_1=0.8, clip_norm=0.01, lookahead_steps=3)
    network = keras.Model(inputs, keras.layers.Dense(2, activation="sigmoid")(inputs))
    rate = Exponential(warmup_steps=2, floor=0.01).rate(0.1, 100, 10)
    network.compile(chosen.make(rate), CrossEntropyAndDice())
    for epochs in (2, 1):
        network.fit(np.eye(4), np.eye(4)[:, :2], epochs=epochs, verbose=0)
        if epochs == 2:
            network.save(tmp_path / "trained.keras")
    words = [sys.executable, "-c", _LOAD, tmp_path / "trained.keras", tmp_path / "found.npy"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), network.get_weights()[0], rtol=1e-5)
