"""The devices for training a fold: one, or several with equal parts of every batch.

Several devices give the gradients of one: the loss is over the whole batch, since Dice is not additive over parts, and
batch normalization uses the statistics of the whole batch. A last batch that does not divide is computed by every
device.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import keras
from keras.distribution import DataParallel

from planar3d.errors import RecipeError, RunError
from planar3d.recipes import Recipe
from planar3d.training.backends import trains
from planar3d.training.precision import check_precision
from planar3d.wording import counted


class Steps(Protocol):
    """Training and evaluation batch by batch; a compiled Keras model has this interface."""

    optimizer: Any

    def train_on_batch(self, inputs: Any, targets: Any, *, return_dict: bool) -> Mapping[str, Any]:
        """Update the weights with a batch, and return its loss and Dice."""

    def test_on_batch(self, inputs: Any, targets: Any, *, return_dict: bool) -> Mapping[str, Any]:
        """Loss and Dice of a batch."""


class Devices(NamedTuple):
    """Devices; by default the backend's own."""

    # Networks and optimizers are created in this scope, so that their variables are on all devices.
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext
    # Steps of a compiled model created in the scope, after its variables have their initial values.
    steps: Callable[[Any], Steps] = lambda trainer: trainer


def _sharded(names: Sequence[str]) -> Devices:
    """Devices of JAX, which computes on a divided batch as if it were whole."""
    scope = _EqualParts(devices=list(names), auto_shard_dataset=False).scope

    def steps(trainer: Any) -> Any:
        train, test = scope()(trainer.train_on_batch), scope()(trainer.test_on_batch)
        return SimpleNamespace(optimizer=trainer.optimizer, train_on_batch=train, test_on_batch=test)

    return Devices(scope, steps)


class _EqualParts(DataParallel):
    def get_data_layout(self, data_shape: Sequence[int]) -> Any:
        parted = data_shape[0] % self.num_model_replicas == 0
        axes = [self.batch_dim_name if parted else None] + [None] * (len(data_shape) - 1)
        return keras.distribution.TensorLayout(axes, self.device_mesh)


def _mirrored(names: Sequence[str]) -> Devices:
    from planar3d.training.mirrored import MirroredSteps, strategy_of

    strategy = strategy_of(*names)
    return Devices(strategy.scope, lambda trainer: MirroredSteps(trainer, strategy))


_SEVERAL: dict[str, Callable[[Sequence[str]], Devices]] = {"tensorflow": _mirrored, "jax": _sharded}


def choose_devices(requested: str | None, recipe: Recipe) -> Devices:
    """The requested devices of the backend.

    Args:
        requested: `"all"`, or numbers such as `"0,1"`, of the GPUs if there are any; default: the backend's choice.

    Raises:
        RunError: the backend does not train, does not have these devices, or trains on only one.
        RecipeError: batches cannot be divided, or the backend cannot compute in the precision.
    """
    backend = keras.backend.backend()
    if not trains(backend):
        raise RunError(f"Keras is set to the backend {backend}, which does not train. Set KERAS_BACKEND=tensorflow.")
    check_precision(recipe.training.precision)
    if requested is None:
        return Devices()
    if backend not in _SEVERAL:
        raise RunError(f"--devices {requested}: on {backend}, a fold is trained on one device. Omit --devices.")
    names = keras.distribution.list_devices()
    numbers = [int(text) for text in re.findall(r"\d+", requested)] if requested != "all" else list(range(len(names)))
    is_list = requested == "all" or re.fullmatch(r"\d+(,\d+)*", requested)
    if not is_list or len(set(numbers)) < len(numbers) or max(numbers) >= len(names):
        others = f", or give numbers from 0 to {len(names) - 1}, each once, or all" if len(names) > 1 else ""
        raise RunError(
            f"--devices {requested}: {backend} finds {counted(names, 'device')} here ({', '.join(names) or 'none'}). "
            f"Omit --devices{others}."
        )
    size, several = recipe.training.batch_size, len(numbers)
    if size % several:
        raise RecipeError(
            f"batch_size={size} is not a multiple of {several}, the number of devices, which share each batch equally. "
            f"Use --set batch_size={-(-size // several) * several}, or other --devices."
        )
    return _SEVERAL[backend]([names[number] for number in numbers])
