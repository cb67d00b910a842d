"""Losses by name: Dice, cross-entropy, and both, on masks that are mostly background.

All compute in float32, whatever the network's precision, and none is below 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import ops


def soft_dice(y_true: Any, y_pred: Any, smoothing: float = 0.0) -> Any:
    """Dice coefficient of probabilities over all voxels of a batch: (2·Σxy + s) / (Σx + Σy + s).

    Args:
        y_true: masks {0, 1}, any shape.
        y_pred: probabilities of the same shape.
        smoothing: s; 0 in Kolarik 2020, eq. 4, and 1 in the released code. Without smoothing an empty mask gives 0.
    """
    y_true = ops.cast(y_true, "float32")
    y_pred = ops.cast(y_pred, "float32")
    total = ops.sum(y_true) + ops.sum(y_pred) + smoothing
    # Only an all-zero prediction of an empty mask could divide by zero.
    return (2 * ops.sum(y_true * y_pred) + smoothing) / ops.maximum(total, keras.config.epsilon())


def bce_minus_dice(smoothing: float = 0.0) -> Callable[[Any, Any], Any]:
    """The training loss: mean binary cross-entropy, minus Dice over the whole batch, plus one.

    Source: Kolarik 2020, eq. 5.
    """

    def loss(y_true: Any, y_pred: Any) -> Any:
        y_true = ops.cast(y_true, "float32")
        y_pred = ops.cast(y_pred, "float32")
        cross_entropy = ops.mean(keras.losses.binary_crossentropy(y_true, y_pred))
        return cross_entropy - soft_dice(y_true, y_pred, smoothing) + 1

    return loss


def dice_metric(smoothing: float = 0.0) -> Callable[[Any, Any], Any]:
    """`soft_dice` as a Keras metric named `dice`: the mean over batches, as the released code monitors it."""

    def dice(y_true: Any, y_pred: Any) -> Any:
        return soft_dice(y_true, y_pred, smoothing)

    return dice


@dataclass(frozen=True)
class MultipleDice:
    """One minus the mean Dice of the channels, so that each counts alike however few its voxels are.

    Of a channel it is 2·Σrp + s over Σr + Σp + s; without smoothing s a channel that is empty gives 0, and no gradient.

    Source: Wacker 2019, eqs. 1 and 2, there of three classes without background (`channels="foreground"`).
    """

    channels: Literal["all", "foreground"] = "all"  # "foreground": all but the first, which is background in a softmax
    over: Literal["batch", "sample"] = "batch"  # what the sums run over; of samples the mean is taken
    denominator: Literal["sums", "squares"] = "sums"  # "squares": of Σr² + Σp² (Messaoudi 2020, eq. 1)
    smoothing: float = 0.0

    def dice(self, y_true: Any, y_pred: Any) -> Any:
        """The mean Dice; as a metric it is the column `dice` of the history.

        Args:
            y_true: masks {0, 1}, (batch, …, channels).
            y_pred: probabilities of the same shape.
        """
        y_true, y_pred = _as_float32(y_true, y_pred)
        axes = list(range(int(self.over == "sample"), len(y_pred.shape) - 1))
        both = ops.sum(y_true * y_pred, axes)
        if self.denominator == "squares":
            y_true, y_pred = ops.square(y_true), ops.square(y_pred)
        either = ops.sum(y_true, axes) + ops.sum(y_pred, axes) + self.smoothing
        by_channel = (2 * both + self.smoothing) / ops.maximum(either, keras.config.epsilon())
        return ops.mean(by_channel[..., int(self.channels == "foreground") :])

    def __call__(self, y_true: Any, y_pred: Any) -> Any:
        """The loss."""
        return 1 - self.dice(y_true, y_pred)


@dataclass(frozen=True)
class CrossEntropyAndDice(MultipleDice):
    """The mean cross-entropy and the Dice loss, added.

    Source: Messaoudi 2023, eq. 5; with `denominator="squares"` and less 1 also Messaoudi 2020, eq. 2.
    """

    cross_entropy: Literal["binary", "categorical"] = "binary"  # of each channel, or of the class of each voxel

    def __call__(self, y_true: Any, y_pred: Any) -> Any:
        """The loss; the cross-entropy is of all channels."""
        y_true, y_pred = _as_float32(y_true, y_pred)
        compute = getattr(keras.losses, f"{self.cross_entropy}_crossentropy")
        return ops.mean(compute(y_true, y_pred)) + super().__call__(y_true, y_pred)


LOSSES: dict[str, Callable[..., Callable[[Any, Any], Any]]] = {
    "bce-dice": bce_minus_dice,
    "multiple-dice": MultipleDice,
    "ce-and-dice": CrossEntropyAndDice,
}


def _as_float32(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    return ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
