"""How a network is trained (Kolarik 2020, section 3.5)."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from planar3d.errors import RecipeError
from planar3d.sections import NOT_NEGATIVE, POSITIVE, SHARE, Limit, Section, section
from planar3d.training.crops import CropSampling
from planar3d.training.losses import LOSSES, BceMinusDice, Loss
from planar3d.training.patches import PatchSampling
from planar3d.training.samples import Sampling, WindowSampling
from planar3d.training.schedules import SCHEDULES, Column, InverseDecay, Schedule

SAMPLINGS: dict[str, type[Sampling]] = {made.name: made for made in (WindowSampling, CropSampling, PatchSampling)}
_PROBABILITY = Limit(lambda v: 0 < v < 1, "a probability greater than 0 and less than 1 is needed")
_SEED = Limit(lambda v: 0 <= v < 2**32, "a seed from 0 to 4294967295 is needed")  # NumPy's, which Keras sets
_DECAY = Limit(lambda v: 0 <= v < 1, "at least 0 and less than 1 is needed, as a mean that decays by 1 stays 0")
Monitor = Literal[Column, "last"]


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


@dataclass(frozen=True)
class Training(Section):
    """Samples, loss, optimizer, schedule, and when training stops."""

    samples: Sampling = section(WindowSampling(), SAMPLINGS)  # samples of a training step
    loss: Loss = section(BceMinusDice(), LOSSES)  # loss function
    frozen: tuple[str, ...] = ("encoder",)  # frozen groups "encoder", "bridge", "decoder", or layers
    output_prior: Annotated[float, _PROBABILITY] = 0.5  # probability of every voxel in an untrained network
    unit_variance: tuple[str, ...] = ()  # groups of random layers scaled to unit output variance
    optimizer: Adam = section(Adam(), OPTIMIZERS)  # optimizer
    learning_rate: Annotated[float, POSITIVE] = 5e-5  # highest learning rate
    schedule: Schedule = section(InverseDecay(), SCHEDULES)  # how the learning rate changes
    batch_size: Annotated[int, POSITIVE] = 2  # windows, crops or patches per step
    epochs: Annotated[int, POSITIVE] = 100  # maximum number of epochs
    patience: Annotated[int, NOT_NEGATIVE] = 40  # epochs without a better `monitor` before stopping; 0: never
    monitor: Monitor = "val_loss"  # criterion for the weights to keep; "last": the last epoch's
    precision: Literal["float32", "bf16", "float16"] = "float32"  # computing precision
    seed: Annotated[int, _SEED] = 0  # seed of weights, order, crops and augmentation

    def check(self) -> None:
        """Refuse a criterion of validation samples where there are none."""
        for field, column, without in (("monitor", self.monitor, "last"), ("watched", self.schedule.watched, "loss")):
            if not self.samples.validates and column.startswith("val_"):
                raise RecipeError(
                    f"without validation there is no {column}; choose a validation, or {field}={without!r}."
                )
