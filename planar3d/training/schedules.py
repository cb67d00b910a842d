"""Learning rate schedules by name, by the step or by the training's progress."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from planar3d.errors import RecipeError
from planar3d.sections import NOT_NEGATIVE, POSITIVE, SHARE, Section

Column = Literal["loss", "dice", "val_loss", "val_dice"]  # of the history
DIRECTIONS = {"loss": "min", "dice": "max", "val_loss": "min", "val_dice": "max"}  # which values are better

# Keras is imported only for computations: recipes contain schedules, and are read without it.


def is_better(value: float, best: float | None, direction: str) -> bool:
    """Whether a value is better than the best so far, which is None or nan before the first; nan is never better."""
    if best is None or math.isnan(best):
        return not math.isnan(value)
    return value > best if direction == "max" else value < best


@dataclass
class PlateauState:
    """The state of a `Plateau`, in plain values."""

    rate: float
    best: float | None = None
    wait: int = 0  # epochs since the best one, or since the rate was lowered


class Schedule(Section):
    """A schedule of the learning rate."""

    watched: str = ""  # column of the history, if any
    floor: float = 0.0  # minimum rate

    def check_with(self, learning_rate: float) -> None:
        """Raise a `RecipeError` if the rate would rise where it has to fall."""
        if self.floor > learning_rate:
            raise RecipeError(f"floor={self.floor:g} is greater than learning_rate={learning_rate:g}; set a lower one.")

    @abstractmethod
    def rate(self, learning_rate: float, steps: int, epoch_steps: int) -> Any:
        """The learning rate of an optimizer over a training of `steps`: a number, or a Keras schedule."""

    def after_epoch(self, optimizer: Any, row: Mapping[str, float], state: PlateauState | None) -> PlateauState | None:
        """Change the optimizer's rate after an epoch, unless it depends only on the step.

        Args:
            optimizer: created with `rate`.
            row: of the history, by column.
            state: the return value after the last epoch, None after the first; checkpoints must save it.
        """
        return None


@dataclass(frozen=True)
class BySteps(Schedule):
    """A rate that depends only on the step, with linear warm-up from 0."""

    warmup_steps: Annotated[int, NOT_NEGATIVE] = 0  # steps in which the learning rate rises from 0

    def rate(self, learning_rate: float, steps: int, epoch_steps: int) -> Any:
        from planar3d.training.optimizers import ByStep

        falling = self.falling(learning_rate, steps, epoch_steps)
        return ByStep(falling, warmup=self.warmup_steps) if self.warmup_steps else falling

    @abstractmethod
    def falling(self, learning_rate: float, steps: int, epoch_steps: int) -> Any:
        """The rate without warm-up."""


@dataclass(frozen=True)
class InverseDecay(BySteps):
    """Rate / (1 + decay · step) (Kolarik 2020, section 3.5); constant with `decay=0`."""

    name = "decay"

    decay: Annotated[float, NOT_NEGATIVE] = 1.99e-7  # rate at a step: learning_rate / (1 + decay · step)

    def falling(self, learning_rate: float, steps: int, epoch_steps: int) -> Any:
        from keras.optimizers.schedules import InverseTimeDecay

        return InverseTimeDecay(learning_rate, 1, self.decay)


@dataclass(frozen=True)
class Cosine(BySteps):
    """Cosine decay from the learning rate to `floor` (Loshchilov & Hutter 2017), after epochs at a constant rate."""

    name = "cosine"

    floor: Annotated[float, NOT_NEGATIVE] = 0.0  # rate at the last step
    constant_epochs: Annotated[int, NOT_NEGATIVE] = 0  # epochs before the rate falls

    def falling(self, learning_rate: float, steps: int, epoch_steps: int) -> Any:
        from keras.optimizers.schedules import CosineDecay

        from planar3d.training.optimizers import ByStep

        constant = self.constant_epochs * epoch_steps
        cosine = CosineDecay(learning_rate, max(steps - constant, 1), self.floor / learning_rate)
        return ByStep(cosine, constant) if constant else cosine


@dataclass(frozen=True)
class Exponential(BySteps):
    """Rate · factor^epoch, at least `floor`."""

    name = "exponential"

    factor: Annotated[float, SHARE] = 0.95  # factor per epoch
    floor: Annotated[float, NOT_NEGATIVE] = 0.0  # minimum rate

    def falling(self, learning_rate: float, steps: int, epoch_steps: int) -> Any:
        from keras.optimizers.schedules import ExponentialDecay

        from planar3d.training.optimizers import ByStep

        return ByStep(ExponentialDecay(learning_rate, epoch_steps, self.factor, staircase=True), floor=self.floor)


@dataclass(frozen=True)
class Plateau(Schedule):
    """Multiply the rate by `factor` whenever a column of the history has not improved for `plateau` epochs.

    Source: Messaoudi 2020, section 2.5; like Keras' `ReduceLROnPlateau`, which does not save its state in checkpoints.
    """

    name = "plateau"

    watched: Column = "loss"  # column of the history
    direction: Literal["min", "max"] = "min"  # whether low or high values are better
    factor: Annotated[float, SHARE] = 0.1  # factor of the rate on a plateau
    plateau: Annotated[int, POSITIVE] = 50  # epochs without improvement
    floor: Annotated[float, NOT_NEGATIVE] = 0.0  # minimum rate

    def check_with(self, learning_rate: float) -> None:
        """Refuse also to lower the rate while the watched column improves."""
        super().check_with(learning_rate)
        better = DIRECTIONS[self.watched]
        if self.direction != better:
            raise RecipeError(
                f"direction={self.direction!r} lowers the learning rate while {self.watched} improves; set "
                f"direction={better}."
            )

    def rate(self, learning_rate: float, steps: int, epoch_steps: int) -> float:
        return learning_rate

    def after_epoch(self, optimizer: Any, row: Mapping[str, float], state: PlateauState | None) -> PlateauState:
        from keras import ops

        state = state or PlateauState(float(ops.convert_to_numpy(optimizer.learning_rate)))
        if is_better(row[self.watched], state.best, self.direction):
            state = PlateauState(state.rate, row[self.watched])
        elif state.wait + 1 < self.plateau:
            state = PlateauState(state.rate, state.best, state.wait + 1)
        else:
            state = PlateauState(max(state.rate * self.factor, self.floor), state.best)
        optimizer.learning_rate = state.rate
        return state


SCHEDULES: dict[str, type[Schedule]] = {made.name: made for made in (InverseDecay, Cosine, Exponential, Plateau)}
