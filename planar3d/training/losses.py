"""Losses by name: Dice, cross-entropy, and both, for masks that are mostly background.

All compute in float32, whatever the network's precision, and none is below 0.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from planar3d.errors import RecipeError
from planar3d.scans.labels import Targets
from planar3d.sections import NOT_NEGATIVE, Section

_NEEDS_SOFTMAX = "{} needs exactly one class for each voxel, but targets={!r} has independent channels; set {}."
# Keras is imported only for computations: recipes contain losses, and are read without it.


def soft_dice(y_true: Any, y_pred: Any, smoothing: float = 0.0) -> Any:
    """Dice coefficient of probabilities over all voxels of a batch: (2·Σxy + s) / (Σx + Σy + s).

    Args:
        y_true: masks {0, 1}, any shape.
        y_pred: probabilities of the same shape.
        smoothing: s; 0 in Kolarik 2020, eq. 4, and 1 in the released code. Without smoothing an empty mask gives 0.
    """
    import keras
    from keras import ops

    y_true, y_pred = _as_float32(y_true, y_pred)
    total = ops.sum(y_true) + ops.sum(y_pred) + smoothing
    # Only an all-zero prediction of an empty mask could divide by zero.
    return (2 * ops.sum(y_true * y_pred) + smoothing) / ops.maximum(total, keras.config.epsilon())


class Loss(Section):
    """A training loss, and the Dice monitored with it."""

    of_logits = "sigmoid"  # whose logits its cross-entropy can take in place of probabilities

    def check_with(self, targets: Targets) -> None:
        """Raise a `RecipeError` if the loss has another meaning with the channels of these targets."""

    @abstractmethod
    def dice(self, y_true: Any, y_pred: Any) -> Any:
        """Dice of a batch, the column `dice` of the history: the mean over batches, as monitored in the released code.

        Args:
            y_true: masks {0, 1}, (batch, …, channels).
            y_pred: probabilities of the same shape.
        """

    @abstractmethod
    def __call__(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of a batch, at least 0; a `ValueError` if masks and probabilities differ in shape."""

    def get_config(self) -> dict[str, Any]:
        """Its fields, for Keras, which saves and copies networks with the loss that they were compiled with."""
        import keras

        keras.saving.get_custom_objects()[type(self).__name__] = type(self)
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The loss with the fields of `get_config`."""
        return cls(**config)


@dataclass(frozen=True)
class BceMinusDice(Loss):
    """Mean binary cross-entropy, minus Dice over the whole batch, plus one (Kolarik 2020, eq. 5)."""

    name = "bce-dice"

    dice_smoothing: Annotated[float, NOT_NEGATIVE] = 0.0  # added to numerator and denominator of Dice

    def dice(self, y_true: Any, y_pred: Any) -> Any:
        return soft_dice(y_true, y_pred, self.dice_smoothing)

    def __call__(self, y_true: Any, y_pred: Any) -> Any:
        return _cross_entropy("binary", y_true, y_pred) - self.dice(y_true, y_pred) + 1


@dataclass(frozen=True)
class MultipleDice(Loss):
    """One minus the mean Dice of the channels, so that each counts equally, whatever its number of voxels.

    For a channel it is (2·Σrp + s) / (Σr + Σp + s + d); without smoothing s an empty channel gives 0 and no gradient.

    Source: Wacker 2019, eqs. 1 and 2, for three classes without background (`dice_of="foreground"`); the released code
    uses all channels and d = 1e-15.
    """

    name = "multiple-dice"

    dice_of: Literal["all", "foreground"] = "all"  # channels; "foreground": all but the first, a softmax's background
    over: Literal["batch", "sample"] = "batch"  # sums over the whole batch, or over each sample and then averaged
    denominator: Literal["sums", "squares"] = "sums"  # "squares": Σr² + Σp² (Messaoudi 2020, eq. 1)
    dice_smoothing: Annotated[float, NOT_NEGATIVE] = 0.0  # added to numerator and denominator of Dice
    denominator_smoothing: Annotated[float, NOT_NEGATIVE] = 0.0  # added only to the denominator

    def check_with(self, targets: Targets) -> None:
        """Refuse to leave out a first channel that is not background."""
        if self.dice_of == "foreground" and targets.activation != "softmax":
            raise RecipeError(_NEEDS_SOFTMAX.format("dice_of='foreground'", targets.name, "dice_of=all"))

    def dice(self, y_true: Any, y_pred: Any) -> Any:
        import keras
        from keras import ops

        y_true, y_pred = _as_float32(y_true, y_pred)
        axes = list(range(int(self.over == "sample"), len(y_pred.shape) - 1))
        both = ops.sum(y_true * y_pred, axes)
        if self.denominator == "squares":
            y_true, y_pred = ops.square(y_true), ops.square(y_pred)
        smoothing = self.dice_smoothing + self.denominator_smoothing
        either = ops.sum(y_true, axes) + ops.sum(y_pred, axes) + smoothing
        by_channel = (2 * both + self.dice_smoothing) / ops.maximum(either, keras.config.epsilon())
        return ops.mean(by_channel[..., int(self.dice_of == "foreground") :])

    def __call__(self, y_true: Any, y_pred: Any) -> Any:
        return 1 - self.dice(y_true, y_pred)


@dataclass(frozen=True)
class CrossEntropyAndDice(MultipleDice):
    """The sum of the mean cross-entropy and the Dice loss.

    Source: Messaoudi 2023, eq. 5; with `denominator="squares"` and less 1 also Messaoudi 2020, eq. 2.
    """

    name = "ce-and-dice"

    cross_entropy: Literal["binary", "categorical"] = "binary"  # per channel, or of each voxel's class

    @property
    def of_logits(self) -> str:  # type: ignore[override]
        return "softmax" if self.cross_entropy == "categorical" else "sigmoid"

    def check_with(self, targets: Targets) -> None:
        """Refuse the cross-entropy of one class where a voxel has no class, or several."""
        super().check_with(targets)
        if self.cross_entropy == "categorical" and targets.activation != "softmax":
            raise RecipeError(
                _NEEDS_SOFTMAX.format("cross_entropy='categorical'", targets.name, "cross_entropy=binary")
            )

    def __call__(self, y_true: Any, y_pred: Any) -> Any:
        """The loss; the cross-entropy is of all channels."""
        return _cross_entropy(self.cross_entropy, y_true, y_pred) + super().__call__(y_true, y_pred)


LOSSES: dict[str, type[Loss]] = {made.name: made for made in (BceMinusDice, MultipleDice, CrossEntropyAndDice)}


def _cross_entropy(kind: str, y_true: Any, y_pred: Any) -> Any:
    import keras

    compute = getattr(keras.losses, f"{kind}_crossentropy")
    return keras.ops.mean(compute(*_as_float32(y_true, y_pred)))


def _as_float32(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Both as float32; a `ValueError` if their shapes differ, which arithmetic would broadcast."""
    from keras import ops

    both = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    # A tensor of TensorFlow may have unknown sizes, or not even a known number of axes.
    masks, probabilities = (None if getattr(y.shape, "rank", 0) is None else tuple(y.shape) for y in both)
    if masks is None or probabilities is None:
        return both
    sizes = zip(masks, probabilities, strict=False)
    if len(masks) != len(probabilities) or any(None not in pair and len({*pair}) > 1 for pair in sizes):
        raise ValueError(
            f"The masks have the shape {masks}, and the probabilities {probabilities}; both must be the same. Add the "
            "axis of a single channel, masks[..., None], or encode labels of several classes with keras.ops.one_hot."
        )
    return both
