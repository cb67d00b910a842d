"""Learning rates fall as the papers say, by the step or when nothing gets better."""

import json
import math
from dataclasses import asdict

import keras
import numpy as np
import pytest

from planar3d.errors import RecipeError
from planar3d.training.schedules import SCHEDULES, Cosine, Exponential, InverseDecay, Plateau, PlateauState
from planar3d.training.settings import OPTIMIZERS

EPOCHS, EPOCH_STEPS = 90, 3


def rates(schedule, rate, steps=EPOCHS * EPOCH_STEPS):
    made = schedule.rate(rate, steps, EPOCH_STEPS)
    return np.array([float(made(step)) for step in range(0, steps + 1)])


def test_inverse_decay_is_kolarik_s_and_constant_without_any():
    found = rates(InverseDecay(decay=0.01), 5e-5)
    np.testing.assert_allclose(found, [5e-5 / (1 + 0.01 * step) for step in range(len(found))], rtol=1e-6)
    assert set(rates(InverseDecay(decay=0), 0.5)) == {0.5}


@pytest.mark.parametrize("constant", [0, 40])
def test_constant_then_cosine_is_messaoudi_s_at_every_epoch(constant):
    found = rates(Cosine(floor=1e-5, constant_epochs=constant), 1e-3)[::EPOCH_STEPS]
    for epoch, rate in enumerate(found):
        falling = 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * (epoch - constant) / (EPOCHS - constant)))
        assert rate == pytest.approx(1e-3 if epoch < constant else falling, rel=1e-5)
    assert found[-1] == pytest.approx(1e-5, rel=1e-4)


def test_the_exponential_takes_67_epochs_to_its_floor():
    by_step = rates(Exponential(factor=0.95, floor=1e-5), 3e-4)
    found = by_step[::EPOCH_STEPS]
    np.testing.assert_allclose(found, [max(3e-4 * 0.95**epoch, 1e-5) for epoch in range(EPOCHS + 1)], rtol=1e-5)
    assert np.flatnonzero(found == found[-1])[0] == 67
    assert len(set(by_step[EPOCH_STEPS : 2 * EPOCH_STEPS])) == 1


@pytest.mark.parametrize(
    "schedule", [InverseDecay(10, 0.1), Cosine(10), Exponential(10), Cosine(10, constant_epochs=2)]
)
def test_every_schedule_by_steps_rises_first(schedule):
    made, without = rates(schedule, 0.1, 100), rates(type(schedule)(0, *list(asdict(schedule).values())[1:]), 0.1, 100)
    rise = np.minimum(np.arange(1, 102) / 10, 1)
    np.testing.assert_allclose(made, without * rise, rtol=1e-6)


@pytest.mark.parametrize("schedule", [Cosine(floor=0.2), Exponential(floor=0.2), Plateau(floor=0.2)])
def test_a_floor_above_the_learning_rate_is_refused(schedule):
    schedule.check_with(0.2)
    with pytest.raises(RecipeError, match=r"floor=0\.2 is greater than learning_rate=0\.1"):
        schedule.check_with(0.1)


@pytest.mark.parametrize("direction", ["min", "max"])
@pytest.mark.parametrize(("factor", "patience", "floor"), [(0.1, 3, 0.0), (0.5, 1, 0.02), (0.2, 5, 0.0)])
def test_a_plateau_is_keras_own_and_goes_on_from_json(direction, factor, patience, floor):
    optimizer, expected = (OPTIMIZERS["adam"]().make(0.1) for _ in range(2))
    callback = keras.callbacks.ReduceLROnPlateau(
        "val_dice", factor, patience, mode=direction, min_delta=0, min_lr=floor
    )
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    network.compile(expected, "mse")
    callback.set_model(network)
    callback.on_train_begin()
    schedule, state = Plateau("val_dice", direction, factor, patience, floor), None
    assert schedule.rate(0.1, 10, 1) == 0.1
    found = []
    for epoch, value in enumerate(np.random.default_rng(0).integers(0, 12, 60) / 12):
        state = schedule.after_epoch(optimizer, {"val_dice": value, "loss": 0}, state)
        state = PlateauState(**json.loads(json.dumps(asdict(state))))
        callback.on_epoch_end(epoch, {"val_dice": value})
        found.append(float(optimizer.learning_rate.numpy()))
        assert found[-1] == pytest.approx(float(expected.learning_rate.numpy()), rel=1e-5)
        assert state.best == callback.best
    assert len(set(found)) > 2


def test_a_plateau_passes_over_epochs_without_a_value_and_reaches_the_optimizer_within_lookahead():
    optimizer, state = OPTIMIZERS["nadam"](lookahead_steps=6).make(0.1), None
    for value in (math.nan, 2.0, math.nan, 2.0, 1.0):
        state = Plateau("loss", plateau=2).after_epoch(optimizer, {"loss": value}, state)
    assert state == PlateauState(pytest.approx(0.01), 1.0, 0)
    assert float(optimizer.inner.learning_rate.numpy()) == pytest.approx(0.01)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_optimizers_take_every_schedule_and_its_fields_are_plain(name):
    schedule = SCHEDULES[name](**json.loads(json.dumps(asdict(SCHEDULES[name]()))))
    optimizer = OPTIMIZERS["adam"]().make(schedule.rate(0.1, 100, 10))
    variable = keras.Variable(1.0)
    optimizer.build([variable])
    optimizer.apply([keras.ops.ones(())], [variable])
    assert float(variable.numpy()) == pytest.approx(0.9, rel=1e-4)
    if name != "plateau":
        assert schedule.after_epoch(optimizer, {"loss": 1.0}, None) is None
