"""Training one fold: early stopping, best weights, history, and exact resume (Kolarik 2020, section 3.5)."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from planar3d.errors import RunError
from planar3d.networks.weights_file import save_weights
from planar3d.progress import Notify, Ticker, duration
from planar3d.recipes import Recipe
from planar3d.training import checkpoint
from planar3d.training.checkpoint import BEST_WEIGHTS, TrainingProgress
from planar3d.training.devices import Devices, Steps
from planar3d.training.precision import PRECISIONS
from planar3d.training.samples import Samples, read_ahead
from planar3d.training.schedules import DIRECTIONS, is_better


def compiled(trained: keras.Model, recipe: Recipe, steps: int = 1, epoch_steps: int = 1) -> keras.Model:
    """A twin of a network with the recipe's optimizer, loss and metric, with an optimizer only for this training.

    Args:
        steps: of the whole training, for schedules that end with it.
        epoch_steps: of an epoch.

    Source: Kolarik 2020, section 3.5 and eq. 5.
    """
    training, output = recipe.training, trained.output
    if recipe.targets.activation != training.loss.of_logits:
        # Of an output with its logits, Keras on TensorFlow takes these for those of the cross-entropy's own activation.
        output = keras.ops.copy(output)
    trainer = keras.Model(trained.input, output, name="trainer")
    optimizer = training.optimizer.make(training.schedule.rate(training.learning_rate, steps, epoch_steps))
    if PRECISIONS[training.precision].scales_loss:
        # Keras does this only for a model built under the policy, which the twin was not.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    trainer.compile(
        optimizer,
        loss=training.loss,
        # A function would get its variables in the first step, which TensorFlow then traces twice.
        metrics=[keras.metrics.MeanMetricWrapper(training.loss.dice, name="dice")],
        # JAX would otherwise run steps eagerly; on TensorFlow, XLA takes minutes for volumes on a CPU.
        jit_compile=keras.backend.backend() == "jax",
    )
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def fit(
    network: keras.Model,
    trained: keras.Model,
    samples: Samples,
    training: np.ndarray,
    validation: np.ndarray,
    recipe: Recipe,
    folder: Path,
    notify: Notify = lambda text: None,
    card: Mapping[str, Any] | None = None,
    devices: Devices = Devices(),  # noqa: B008 - immutable
    check: Callable[[], None] = lambda: None,
) -> TrainingProgress:
    """Train until the last epoch or until `patience` is exhausted, and keep the best weights.

    After every epoch the weights, the optimizer and the progress are saved; an interrupted run resumes after its last
    complete epoch and, after `make_deterministic`, ends with the weights of an uninterrupted run (same machine, same
    versions).

    Args:
        network: the whole network, whose weights are saved.
        trained: the model trained on samples: the network, its decoder for cached features, or its `trainer_of`.
        samples: batches of inputs and masks.
        training, validation: numbers of samples.
        recipe: optimizer, loss, epochs, patience, monitor, shuffling.
        folder: the fold's; gets best.weights.h5, history.csv, backup/ during training, and training.json at the end.
        notify: gets a line after each epoch.
        card: model card for the weights file, see `training_card`.
        devices: on which the network was built; default: the backend's choice.
        check: called before files are written; raises an error if they are another process' by now.

    Returns:
        The progress at the end, with the history by epoch.

    Raises:
        RunError: training diverged; nothing of that epoch is kept.

    Source: Kolarik 2020, section 3.5 and eq. 5.
    """
    if checkpoint.is_finished(folder):
        return checkpoint.finished_progress(folder)
    epoch_steps = -(-len(training) // recipe.training.batch_size)
    with devices.scope():
        trainer = compiled(trained, recipe, recipe.training.epochs * epoch_steps, epoch_steps)
    progress = checkpoint.restore(folder, network, trainer.optimizer)
    steps = devices.steps(trainer)
    if progress.epoch:
        notify(f"resuming after epoch {progress.epoch}")
    began = time.monotonic()
    first, monitor = progress.epoch, recipe.training.monitor
    while not _is_over(progress, recipe):
        ticker = Ticker(notify, f"epoch {progress.epoch + 1}, batches")
        order = recipe.training.samples.order(training, progress.epoch, recipe.training.seed)
        row = _run_epoch(steps, samples, order, validation, recipe, ticker)
        progress.epoch += 1
        if not np.isfinite(row["loss"]):
            raise _diverged(f"The loss became {row['loss']} in epoch {progress.epoch}", recipe)
        if not all(np.isfinite(array).all() for array in network.get_weights()):  # by the step after the last loss
            raise _diverged(f"Weights became infinite or nan in epoch {progress.epoch}", recipe)
        progress.history.append({"epoch": progress.epoch, **row})
        progress.plateau = recipe.training.schedule.after_epoch(trainer.optimizer, row, progress.plateau)
        check()
        if monitor == "last" or is_better(row[monitor], progress.best, DIRECTIONS[monitor]):
            progress.best, progress.best_epoch = row.get(monitor, row["loss"]), progress.epoch
            save_weights(network, folder / BEST_WEIGHTS, recipe, card)
        checkpoint.save(folder, network, trainer.optimizer, progress)
        left = (time.monotonic() - began) / (progress.epoch - first) * (recipe.training.epochs - progress.epoch)
        notify(_line(progress, recipe, left))
    if not progress.best_epoch:
        raise _diverged(f"{monitor} was nan in every epoch, so no weights were kept", recipe)
    check()
    checkpoint.finish(folder, progress)
    return progress


def _diverged(what: str, recipe: Recipe) -> RunError:
    return RunError(
        f"{what}. Lower the learning rate ({recipe.training.learning_rate:g}), or use --precision float32, in a new "
        "run folder."
    )


def _run_epoch(
    steps: Steps, samples: Samples, order: np.ndarray, validation: np.ndarray, recipe: Recipe, ticker: Ticker
) -> dict[str, float]:
    start = time.monotonic()
    rate = float(keras.ops.convert_to_numpy(steps.optimizer.learning_rate))
    logs = _run_batches(steps.train_on_batch, samples, order, recipe.training.batch_size, ticker)
    checked = _run_batches(steps.test_on_batch, samples, validation, recipe.training.batch_size)
    logs |= {f"val_{name}": checked.get(name, float("nan")) for name in logs}
    return {"learning_rate": rate, **logs, "seconds": round(time.monotonic() - start, 2)}


def _run_batches(
    step: Callable[..., Any],
    samples: Samples,
    order: np.ndarray,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, float]:
    """Run a step over all batches; metrics are means over the batches, weighted by their windows, as in Keras."""
    sums: dict[str, float] = defaultdict(float)
    of = -(-len(order) // batch_size)
    for done, (numbers, inputs, targets) in enumerate(read_ahead(samples, order, batch_size), start=1):
        # Keras returns the metrics of only this batch.
        logs = step(inputs, targets, return_dict=True)
        for name, value in logs.items():
            sums[name] += float(value) * len(numbers)
        progress(done, of)
    return {name: total / len(order) for name, total in sums.items()}


def _is_over(progress: TrainingProgress, recipe: Recipe) -> bool:
    patience = recipe.training.patience
    return progress.epoch >= recipe.training.epochs or 0 < patience <= progress.epoch - progress.best_epoch


def _line(progress: TrainingProgress, recipe: Recipe, left: float) -> str:
    row = progress.history[-1]
    validated = "" if np.isnan(row["val_loss"]) else f"val_loss {row['val_loss']:.4f}  val_dice {row['val_dice']:.4f}  "
    mark = " *" if progress.best_epoch == progress.epoch else ""
    return (
        f"epoch {progress.epoch}/{recipe.training.epochs}  loss {row['loss']:.4f}  dice {row['dice']:.4f}  "
        f"{validated}{row['seconds']:.0f} s, {duration(left)} left{mark}"
    )
