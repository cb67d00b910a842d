"""Optimizers by name: Adam, Nadam in its three readings, and Lookahead around either."""

from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015), perhaps with Lookahead around it."""

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    clip_norm: float = 0.0  # largest norm of all gradients together; 0 does not clip
    lookahead_steps: int = 0  # of the fast weights, between two of the slow ones; 0 is without Lookahead
    lookahead_share: float = 0.5  # of the way to the fast weights that the slow ones go

    def make(self, learning_rate: float | LearningRateSchedule) -> keras.optimizers.Optimizer:
        """The optimizer of Keras."""
        fast = self._fast(learning_rate, self.clip_norm or None)
        return Lookahead(fast, self.lookahead_steps, self.lookahead_share) if self.lookahead_steps else fast

    def _fast(self, learning_rate: float | LearningRateSchedule, clip_norm: float | None) -> keras.optimizers.Optimizer:
        betas = {"beta_1": self.beta_1, "beta_2": self.beta_2}
        return keras.optimizers.Adam(learning_rate, **betas, epsilon=self.epsilon, global_clipnorm=clip_norm)


@dataclass(frozen=True)
class Nadam(Adam):
    """Adam with Nesterov's momentum μ = β₁ (1 - ½ · 0.96^(t · `momentum_decay`)) at step t from 1 (Dozat 2016).

    With `momentum_decay=1` it is Keras' own, whose momentum warms up 250 times faster.
    """

    momentum_decay: float = 0.004
    gradient_share: Literal["momentum", "beta_1"] = "momentum"  # of a gradient in its own step: 1 - μ, or 1 - β₁ as in
    # the code of Messaoudi 2023, whose epsilon is 1e-5

    def _fast(self, learning_rate: float | LearningRateSchedule, clip_norm: float | None) -> keras.optimizers.Optimizer:
        return NesterovAdam(learning_rate, self, clip_norm)


class NesterovAdam(keras.optimizers.Optimizer):
    """What `Nadam` says, as Keras takes it. All of its state has names, so that a checkpoint finds it again.

    Args:
        learning_rate: a number or a schedule.
        settings: betas, epsilon, and how the momentum warms up.
        clip_norm: largest norm of all gradients together.
    """

    def __init__(
        self, learning_rate: float | LearningRateSchedule, settings: Nadam, clip_norm: float | None = None
    ) -> None:
        super().__init__(learning_rate, global_clipnorm=clip_norm, name="nadam")
        self.settings = settings

    def build(self, variables: list[Any]) -> None:
        """Make the moments of each variable, and the product of all momenta so far."""
        if not self.built:
            super().build(variables)
            self.first, self.second = self.add_optimizer_variables(variables, ["momentum", "velocity"])
            self.product = self.add_variable((), "ones", name="momentum_product")

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables."""
        if not self.built:
            self.build(list(trainable_variables))
        self.assign(self.product, self.product * self._momentum(self.iterations + 1))
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        beta_1, beta_2 = self.settings.beta_1, self.settings.beta_2
        index = self._get_variable_index(variable)
        first, second = self.first[index], self.second[index]
        gradient = ops.cast(gradient, variable.dtype)
        step = self.iterations + 1
        momentum, following = self._momentum(step), self._momentum(step + 1)
        self.assign(first, beta_1 * first + (1 - beta_1) * gradient)
        self.assign(second, beta_2 * second + (1 - beta_2) * ops.square(gradient))
        share = 1 - (momentum if self.settings.gradient_share == "momentum" else beta_1)
        ahead = share / (1 - self.product) * gradient + following / (1 - self.product * following) * first
        variance = second / (1 - ops.power(beta_2, ops.cast(step, "float32")))
        change = ops.cast(learning_rate, "float32") * ahead / (ops.sqrt(variance) + self.settings.epsilon)
        self.assign_sub(variable, ops.cast(change, variable.dtype))

    def _momentum(self, step: Any) -> Any:
        warmed = ops.power(0.96, ops.cast(step, "float32") * self.settings.momentum_decay)
        return self.settings.beta_1 * (1 - 0.5 * warmed)


class Lookahead(keras.optimizers.Optimizer):
    """Slow weights that follow those of another optimizer, which goes on from them (Zhang et al. 2019).

    Every so many steps slow ← slow + share · (fast - slow), and fast ← slow; moments stay as they are. The slow weights
    are variables of the optimizer, so a checkpoint has them.

    Args:
        inner: the optimizer of the fast weights; its learning rate is this one's.
        steps: fast steps between two slow ones.
        share: of the way to the fast weights.
    """

    def __init__(self, inner: keras.optimizers.Optimizer, steps: int = 6, share: float = 0.5) -> None:
        super().__init__(0.0, name="lookahead")
        self.inner, self.steps, self.share = inner, steps, share

    def build(self, variables: list[Any]) -> None:
        """Make the slow weights, which begin as the weights are."""
        if not self.built:
            self.inner.build(variables)
            super().build(variables)
            self.slow = self.add_optimizer_variables(variables, "slow")
            for slow, fast in zip(self.slow, variables, strict=True):
                slow.assign(ops.convert_to_numpy(fast))  # JAX would have both share their memory

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables, and in every so many steps the slow ones."""
        if not self.built:
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
        """Its own, and those of the inner optimizer."""
        return self._variables + self.inner.variables

    @property
    def learning_rate(self) -> Any:
        """That of the inner optimizer."""
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.inner.learning_rate = rate


OPTIMIZERS: dict[str, type[Adam]] = {"adam": Adam, "nadam": Nadam}
