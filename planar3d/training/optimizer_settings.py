"""The settings of optimizers in recipes, which are read without Keras; `optimizers.py` computes with them."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from planar3d.sections import NOT_NEGATIVE, POSITIVE, SHARE, Rule, Section

_DECAY = Rule(lambda v: 0 <= v < 1, "at least 0 and less than 1 is needed, as a mean that decays by 1 stays 0")


@dataclass(frozen=True)
class Adam(Section):
    """Adam (Kingma & Ba 2015), optionally with Lookahead (Zhang et al. 2019)."""

    name = "adam"

    beta_1: Annotated[float, _DECAY] = 0.9  # decay of the mean of gradients
    beta_2: Annotated[float, _DECAY] = 0.999  # decay of the mean of squared gradients
    epsilon: Annotated[float, POSITIVE] = 1e-7  # Keras' default
    clip_norm: Annotated[float, NOT_NEGATIVE] = 0.0  # largest global gradient norm; 0: no clipping
    lookahead_steps: Annotated[int, NOT_NEGATIVE] = 0  # fast steps per slow step; 0: no lookahead
    lookahead_share: Annotated[float, SHARE] = 0.5  # step of the slow weights towards the fast ones

    def make(self, learning_rate: Any) -> Any:
        """The Keras optimizer, for a rate or a Keras schedule."""
        from planar3d.training.optimizers import Lookahead

        fast = self._fast(learning_rate)
        return Lookahead(fast, self.lookahead_steps, self.lookahead_share) if self.lookahead_steps else fast

    def _fast(self, learning_rate: Any) -> Any:
        from keras import optimizers

        norm = self.clip_norm or None
        return optimizers.Adam(learning_rate, self.beta_1, self.beta_2, self.epsilon, global_clipnorm=norm)


@dataclass(frozen=True)
class Nadam(Adam):
    """Adam with Nesterov's momentum μ = β₁ (1 - ½ · 0.96^(t · `momentum_decay`)) at step t from 1 (Dozat 2016).

    TensorFlow 2 until 2.10 has this Nadam. Keras 3 has it with `momentum_decay=1`, a momentum warm-up that is 250 times
    faster; the code of Messaoudi 2023 has `gradient_share="beta_1"` and an epsilon of 1e-5.
    """

    name = "nadam"

    momentum_decay: Annotated[float, POSITIVE] = 0.004  # for the momentum's warm-up; Keras 3 has 1
    gradient_share: Literal["momentum", "beta_1"] = "momentum"  # weight of a gradient in its own step: 1 - μ, or 1 - β₁

    def _fast(self, learning_rate: Any) -> Any:
        from planar3d.training.optimizers import NesterovAdam

        return NesterovAdam(learning_rate, self)


OPTIMIZERS: dict[str, type[Adam]] = {made.name: made for made in (Adam, Nadam)}
