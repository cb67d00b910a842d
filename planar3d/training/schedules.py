"""Schedules of the learning rate by name: by the step, or by how the training goes."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import ops
from keras.optimizers.schedules import CosineDecay, ExponentialDecay, InverseTimeDecay, LearningRateSchedule

from planar3d.recipes import Recipe


@dataclass
class PlateauState:
    """Where a `Plateau` stands, in plain values."""

    rate: float
    best: float | None = None
    wait: int = 0  # epochs since the best one, or since the rate was lowered


class Schedule:
    """How the learning rate changes. Subclasses are frozen dataclasses."""

    @abstractmethod
    def rate(self, learning_rate: float, steps: int, epoch_steps: int) -> float | LearningRateSchedule:
        """What an optimizer is made with.

        Args:
            learning_rate: the highest.
            steps: of the whole training.
            epoch_steps: steps of an epoch.
        """

    def after_epoch(
        self, optimizer: keras.optimizers.Optimizer, row: Mapping[str, float], state: PlateauState | None
    ) -> PlateauState | None:
        """Change the optimizer's rate after an epoch, unless the step alone decides on it.

        Args:
            optimizer: made with `rate`.
            row: of the history, by column.
            state: what this gave after the last epoch, None after the first; a checkpoint has to keep it.
        """
        return None


@dataclass(frozen=True)
class BySteps(Schedule):
    """A rate that the step alone decides on; it rises linearly from 0 in the first steps."""

    warmup_steps: int = 0

    def rate(self, learning_rate: float, steps: int, epoch_steps: int) -> LearningRateSchedule:  # noqa: D102
        falling = self.falling(learning_rate, steps, epoch_steps)
        if not self.warmup_steps:
            return falling
        return ByStep(lambda step: falling(step) * ops.minimum((step + 1) / self.warmup_steps, 1.0))

    @abstractmethod
    def falling(self, learning_rate: float, steps: int, epoch_steps: int) -> LearningRateSchedule:
        """The rate without its rise."""


@dataclass(frozen=True)
class InverseDecay(BySteps):
    """Rate / (1 + decay · step) (Kolarik 2020, section 3.5); constant with `decay=0`."""

    decay: float = 0.0

    def falling(self, learning_rate: float, steps: int, epoch_steps: int) -> LearningRateSchedule:  # noqa: D102
        return InverseTimeDecay(learning_rate, 1, self.decay)


@dataclass(frozen=True)
class Cosine(BySteps):
    """Half a cosine from the rate to `floor` (Loshchilov & Hutter 2017), after epochs in which it is constant."""

    floor: float = 0.0
    constant_epochs: int = 0

    def falling(self, learning_rate: float, steps: int, epoch_steps: int) -> LearningRateSchedule:  # noqa: D102
        constant = self.constant_epochs * epoch_steps
        cosine = CosineDecay(learning_rate, max(steps - constant, 1), self.floor / learning_rate)
        return ByStep(lambda step: cosine(ops.maximum(step - constant, 0))) if constant else cosine


@dataclass(frozen=True)
class Exponential(BySteps):
    """Rate · factor^epoch, at least `floor`."""

    factor: float = 0.95
    floor: float = 0.0

    def falling(self, learning_rate: float, steps: int, epoch_steps: int) -> LearningRateSchedule:  # noqa: D102
        by_epoch = ExponentialDecay(learning_rate, epoch_steps, self.factor, staircase=True)
        return ByStep(lambda step: ops.maximum(by_epoch(step), self.floor))


@dataclass(frozen=True)
class Plateau(Schedule):
    """A rate that is multiplied by `factor` whenever a column of the history has not been better for some epochs.

    Source: Messaoudi 2020, section 2.5; as Keras' `ReduceLROnPlateau`, whose state no checkpoint has.
    """

    monitor: str = "loss"
    direction: Literal["min", "max"] = "min"  # what of the column is better
    factor: float = 0.1
    patience: int = 50  # epochs
    floor: float = 0.0

    def rate(self, learning_rate: float, steps: int, epoch_steps: int) -> float:  # noqa: D102
        return learning_rate

    def after_epoch(  # noqa: D102
        self, optimizer: keras.optimizers.Optimizer, row: Mapping[str, float], state: PlateauState | None
    ) -> PlateauState:
        state = state or PlateauState(float(ops.convert_to_numpy(optimizer.learning_rate)))
        state = self.next(state, row[self.monitor])
        optimizer.learning_rate = state.rate
        return state

    def next(self, state: PlateauState, value: float) -> PlateauState:
        """The state after an epoch with this value; nan is never better."""
        sign = 1 if self.direction == "max" else -1
        if not math.isnan(value) and (state.best is None or sign * value > sign * state.best):
            return PlateauState(state.rate, value)
        if state.wait + 1 < self.patience:
            return PlateauState(state.rate, state.best, state.wait + 1)
        return PlateauState(max(state.rate * self.factor, self.floor), state.best)


SCHEDULES: dict[str, type[Schedule]] = {
    "inverse-decay": InverseDecay,
    "cosine": Cosine,
    "exponential": Exponential,
    "plateau": Plateau,
}


class ByStep(LearningRateSchedule):
    """A learning rate as a function of the step, a float32."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step."""
        return self.function(ops.cast(step, "float32"))

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {"function": self.function}


def learning_rate(recipe: Recipe, steps: int) -> LearningRateSchedule:
    """The recipe's schedule for a training of so many steps."""
    cosine = recipe.schedule == "cosine"
    made = Cosine(recipe.warmup_steps) if cosine else InverseDecay(recipe.warmup_steps, recipe.decay)
    return made.rate(recipe.learning_rate, steps, steps)
