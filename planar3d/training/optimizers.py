"""Optimizers missing in Keras: Dozat's Nadam and Lookahead; and learning rates by the step.

After the import of this module, Keras loads networks that were saved with one of them or with a loss of a recipe.
"""

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule, deserialize, serialize

from planar3d.training.losses import LOSSES
from planar3d.training.settings import Nadam

for _loss in LOSSES.values():
    keras.saving.get_custom_objects()[_loss.__name__] = _loss


@keras.saving.register_keras_serializable(package="planar3d")
class NesterovAdam(keras.optimizers.Optimizer):
    """The settings `Nadam` as a Keras optimizer. All its state is named, so that checkpoints restore it."""

    def __init__(self, learning_rate: float | LearningRateSchedule, settings: Nadam | dict[str, Any]) -> None:
        made = settings if isinstance(settings, Nadam) else Nadam(**settings)
        super().__init__(learning_rate, global_clipnorm=made.clip_norm or None, name="nadam")
        self.settings = made

    def get_config(self) -> dict[str, Any]:
        """The arguments, for Keras, which saves networks with their optimizer."""
        return {"learning_rate": super().get_config()["learning_rate"], "settings": dict(vars(self.settings))}

    def build(self, variables: list[Any]) -> None:
        """Create the moments of each variable, and the product of all momenta so far."""
        if not self.built:
            super().build(variables)
            self.first, self.second = self.add_optimizer_variables(variables, ["momentum", "velocity"])
            self.product = self.add_variable((), "ones", name="momentum_product")

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables; the first call with them builds the optimizer."""
        if trainable_variables is not None:
            self.build(list(trainable_variables))
        step = self.iterations + 1
        momentum, following = self._momentum(step), self._momentum(step + 1)
        self.assign(self.product, self.product * momentum)
        # Once for all variables: networks have hundreds, and compiling their graphs would take minutes.
        share = 1 - (momentum if self.settings.gradient_share == "momentum" else self.settings.beta_1)
        self._shares = share / (1 - self.product), following / (1 - self.product * following)
        self._correction = 1 - ops.power(self.settings.beta_2, ops.cast(step, "float32"))
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        beta_1, beta_2 = self.settings.beta_1, self.settings.beta_2
        index = self._get_variable_index(variable)
        first, second = self.first[index], self.second[index]
        gradient = ops.cast(gradient, variable.dtype)
        self.assign(first, beta_1 * first + (1 - beta_1) * gradient)
        self.assign(second, beta_2 * second + (1 - beta_2) * ops.square(gradient))
        of_gradient, of_mean = self._shares
        ahead, variance = of_gradient * gradient + of_mean * first, second / self._correction
        change = ops.cast(learning_rate, "float32") * ahead / (ops.sqrt(variance) + self.settings.epsilon)
        self.assign_sub(variable, ops.cast(change, variable.dtype))

    def _momentum(self, step: Any) -> Any:
        warmed = ops.power(0.96, ops.cast(step, "float32") * self.settings.momentum_decay)
        return self.settings.beta_1 * (1 - 0.5 * warmed)


@keras.saving.register_keras_serializable(package="planar3d")
class Lookahead(keras.optimizers.Optimizer):
    """Slow weights that follow another optimizer's fast weights and reset them (Zhang et al. 2019).

    Every `steps` steps, slow ← slow + share · (fast - slow), and fast ← slow; moments are unchanged. The slow weights
    are variables of the optimizer, so checkpoints include them. The learning rate is the inner optimizer's.
    """

    def __init__(self, inner: keras.optimizers.Optimizer | dict[str, Any], steps: int, share: float) -> None:
        super().__init__(0.0, name="lookahead")
        self.inner, self.steps, self.share = keras.optimizers.get(inner), steps, share

    def get_config(self) -> dict[str, Any]:
        """The arguments, for Keras."""
        return {"inner": keras.optimizers.serialize(self.inner), "steps": self.steps, "share": self.share}

    def build(self, variables: list[Any]) -> None:
        """Create the slow weights, with the initial weights as values."""
        if not self.built:
            self.inner.build(variables)
            super().build(variables)
            # By an initializer: Keras may build inside TensorFlow's graph. A copy, as both would share memory in JAX.
            self.slow = [
                self.add_variable_from_reference(fast, "slow", lambda shape, dtype, fast=fast: ops.copy(fast))
                for fast in variables
            ]

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables, and every `steps` steps the slow weights; the first call with them builds all."""
        if trainable_variables is not None:
            self.build(list(trainable_variables))
        self.inner.apply(grads, trainable_variables)
        self._iterations.assign_add(1)
        is_due = ops.equal(self._iterations % self.steps, 0)
        for slow, fast in zip(self.slow, self._trainable_variables, strict=True):
            before, after = ops.convert_to_tensor(slow), ops.convert_to_tensor(fast)
            moved = before + self.share * (after - before)
            self.assign(slow, ops.where(is_due, moved, before))
            self.assign(fast, ops.where(is_due, moved, after))

    @property
    def variables(self) -> list[Any]:
        return self._variables + self.inner.variables

    @property
    def learning_rate(self) -> Any:
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.inner.learning_rate = rate


@keras.saving.register_keras_serializable(package="planar3d")
class ByStep(LearningRateSchedule):
    """Another schedule after `delay` steps at its first rate, at least `floor`, with linear warm-up from 0."""

    def __init__(
        self, schedule: LearningRateSchedule | dict[str, Any], delay: int = 0, floor: float = 0.0, warmup: int = 0
    ) -> None:
        self.schedule = deserialize(schedule) if isinstance(schedule, dict) else schedule
        self.delay, self.floor, self.warmup = delay, floor, warmup

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rate = ops.maximum(self.schedule(ops.maximum(step - self.delay, 0)), self.floor)
        return rate * ops.minimum((step + 1) / self.warmup, 1.0) if self.warmup else rate

    def get_config(self) -> dict[str, Any]:
        """The arguments, for Keras."""
        return vars(self) | {"schedule": serialize(self.schedule)}
