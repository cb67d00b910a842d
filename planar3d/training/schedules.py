"""Learning rates by step."""

from typing import Any

import keras
import numpy as np
from keras import ops

from planar3d.recipes import Recipe


def learning_rate(recipe: Recipe, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The recipe's schedule for a training of so many steps.

    `"decay"`: rate / (1 + decay · step), as in Kolarik 2020, section 3.5. `"cosine"`: half a cosine from the rate to 0
    (Loshchilov & Hutter 2017). Either rises linearly from 0 in the first `warmup_steps`.
    """
    if recipe.schedule == "cosine":
        falling = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, steps)
    else:
        falling = keras.optimizers.schedules.InverseTimeDecay(recipe.learning_rate, 1, recipe.decay)
    return WarmUp(falling, recipe.warmup_steps) if recipe.warmup_steps else falling


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule, multiplied by (step + 1) / steps in its first steps."""

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int) -> None:
        self.schedule, self.steps = schedule, steps

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step."""
        rise = ops.minimum((ops.cast(step, "float32") + 1) / np.float32(self.steps), 1.0)
        return self.schedule(step) * rise

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {"schedule": self.schedule, "steps": self.steps}
