"""The loss on unbalanced masks: cross-entropy minus Dice plus one (Kolarik 2020, eqs. 4 and 5)."""

from collections.abc import Callable
from typing import Any

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
