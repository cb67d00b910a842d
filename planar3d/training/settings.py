"""How a network is trained (Kolarik 2020, section 3.5)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from planar3d.errors import RecipeError
from planar3d.sections import NOT_NEGATIVE, POSITIVE, Rule, Section, section
from planar3d.training.crops import CropSampling
from planar3d.training.losses import LOSSES, BceMinusDice, Loss
from planar3d.training.optimizer_settings import OPTIMIZERS, Adam
from planar3d.training.patches import PatchSampling
from planar3d.training.samples import WindowSampling
from planar3d.training.sampling import Sampling
from planar3d.training.schedules import SCHEDULES, Column, InverseDecay, Schedule

SAMPLINGS: dict[str, type[Sampling]] = {made.name: made for made in (WindowSampling, CropSampling, PatchSampling)}
_PROBABILITY = Rule(lambda v: 0 < v < 1, "a probability greater than 0 and less than 1 is needed")
_SEED = Rule(lambda v: 0 <= v < 2**32, "a seed from 0 to 4294967295 is needed")  # NumPy's, which Keras sets
Monitor = Literal[Column, "last"]


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
