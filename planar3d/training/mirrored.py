"""Several TensorFlow devices for one fold, each with a copy of all variables (`tf.distribute.MirroredStrategy`)."""

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from planar3d.graph.keras_graph import calling, remembering_logits, with_logits

_APART = 1_000_003  # difference of seeds between devices


@functools.cache
def strategy_of(*names: str) -> tf.distribute.Strategy:
    """Equal copies of all variables on devices."""
    # One for all folds of a process: collective operations of two strategies have the same keys and would be mixed up.
    return tf.distribute.MirroredStrategy(list(names))


class _LossAddedError(Exception):
    """A layer added a loss of a part of a batch; that of the whole batch does not always follow from its parts."""


class MirroredSteps:
    """Steps in which devices compute gradients jointly, and one optimizer applies them as those of a single device.

    Each device has a part of the inputs and all targets. Probabilities are gathered, so that each device has the loss
    of the whole batch and its gradient with respect to the device's own probabilities; the resulting gradients of
    weights are summed. Batch normalization is synchronized. Random layers draw different numbers on each device. If a
    layer adds losses, each device computes the whole batch. The trainer was compiled under the strategy.
    """

    def __init__(self, trainer: keras.Model, strategy: tf.distribute.Strategy) -> None:
        self.trainer, self.strategy, self.optimizer = trainer, strategy, trainer.optimizer
        self.count = strategy.num_replicas_in_sync
        self.divides = True  # until a layer adds a loss
        for variable in trainer.variables:
            if variable.path.endswith("seed_generator_state"):
                # Each device counts in its own copy. The first copy is saved, and the others follow from it.
                for number, copy in enumerate(strategy.experimental_local_results(variable.value)):
                    copy.assign(copy + tf.cast([number * _APART, 0], copy.dtype))
        self._train = tf.function(self._train_together, autograph=False)
        self._test = tf.function(self._test_together, autograph=False)

    def train_on_batch(self, inputs: Any, targets: Any, *, return_dict: bool = True) -> Mapping[str, Any]:
        return self._step(self._train, inputs, targets)

    def test_on_batch(self, inputs: Any, targets: Any, *, return_dict: bool = True) -> Mapping[str, Any]:
        return self._step(self._test, inputs, targets)

    def _step(self, step: Callable[..., Mapping[str, Any]], inputs: Any, targets: Any) -> Mapping[str, Any]:
        try:
            return step(*self._divided(inputs, targets))
        except _LossAddedError:
            self.divides = False
            return step(*self._divided(inputs, targets))

    def _divided(self, inputs: Any, targets: Any) -> tuple[Any, Any, bool]:
        """The inputs by device, all targets, and whether the inputs are parts."""
        share, rest = divmod(len(targets), self.count)
        parted = self.divides and not rest

        def part(context: Any) -> Any:
            first = context.replica_id_in_sync_group * share
            chosen = slice(first, first + share) if parted else slice(None)
            with tf.device(self.strategy.extended.worker_devices[context.replica_id_in_sync_group]):
                return tree.map_structure(lambda array: tf.convert_to_tensor(array[chosen]), inputs)

        return self.strategy.experimental_distribute_values_from_function(part), tf.convert_to_tensor(targets), parted

    # Outside `strategy.run`, code sees variables as on one device, and changes all copies. So the optimizer clips,
    # scales and looks ahead as on one device.

    def _train_together(self, inputs: Any, targets: Any, parted: bool) -> Mapping[str, Any]:
        gradients, logs = self._run(self._gradients, inputs, targets, parted)
        how = tf.distribute.ReduceOp.SUM if parted else tf.distribute.ReduceOp.MEAN
        with tf.device(self.strategy.extended.worker_devices[0]):
            gradients = [g if g is None else self.strategy.reduce(how, g, axis=None) for g in gradients]
        self.optimizer.apply(gradients, self.trainer.trainable_variables)
        return self._of_first(logs)

    def _test_together(self, inputs: Any, targets: Any, parted: bool) -> Mapping[str, Any]:
        def measured(inputs: Any, targets: Any, parted: bool) -> Mapping[str, Any]:
            whole = self._gathered(with_logits(self.trainer(inputs, training=False)), parted)
            return self._measured(targets, remembering_logits(whole))

        return self._of_first(self._run(measured, inputs, targets, parted))

    def _run(self, on_each: Callable[..., Any], inputs: Any, targets: Any, parted: bool) -> Any:
        self._added: dict[int, list[Any]] = defaultdict(list)  # by device

        def add_loss(losses: Any) -> None:
            if parted:
                raise _LossAddedError
            self._added[_number()] += tree.flatten(losses)

        with calling(self.trainer, _moments, add_loss):
            return self.strategy.run(on_each, (inputs, targets, parted))

    def _gradients(self, inputs: Any, targets: Any, parted: bool) -> tuple[list[Any], Mapping[str, Any]]:
        """On one device: its part of the weights' gradients, or the whole gradients; the loss and Dice of the batch."""
        with tf.GradientTape() as of_weights:
            found = with_logits(self.trainer(inputs, training=True))
            penalty = self._penalty()
        whole = self._gathered(found, parted)
        with tf.GradientTape() as of_found:
            of_found.watch(whole)
            logs = self._measured(targets, remembering_logits(whole))
            scaled = self.optimizer.scale_loss(logs["loss"])
        upstreams = of_found.gradient(scaled, whole, unconnected_gradients="zero")
        share = tf.constant(1.0)
        if parted:
            size = found[0].shape[0]
            upstreams = [upstream[_number() * size :][:size] for upstream in upstreams]
            share /= self.count
        upstreams.append(self.optimizer.scale_loss(share))
        weights = self.trainer.trainable_variables
        return of_weights.gradient([*found, penalty], weights, output_gradients=upstreams), logs

    def _gathered(self, found: list[Any], parted: bool) -> list[Any]:
        context = tf.distribute.get_replica_context()
        return [context.all_gather(part, axis=0) if parted else tf.identity(part) for part in found]

    def _measured(self, targets: Any, probabilities: Any) -> Mapping[str, Any]:
        loss = self.trainer.loss
        both = loss(targets, probabilities) + self._penalty()
        return {"loss": both, "dice": loss.dice(targets, probabilities)}

    def _penalty(self) -> Any:
        weights = self.trainer.trainable_variables
        added = [v.regularizer(v) for v in weights if v.regularizer is not None] + self._added[_number()]
        return sum((tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in added), start=tf.zeros(()))

    def _of_first(self, logs: Any) -> Any:
        return tree.map_structure(lambda value: self.strategy.experimental_local_results(value)[0], logs)


def _number() -> int:
    """Of the device that computes."""
    return int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))


def _moments(x: Any, axes: Sequence[int]) -> tuple[Any, Any]:
    """Mean and variance over equal parts on all devices, in two passes; Keras' single pass loses digits."""
    context, how = tf.distribute.get_replica_context(), tf.distribute.ReduceOp.MEAN
    mean = context.all_reduce(how, tf.reduce_mean(x, axes, keepdims=True))
    variance = context.all_reduce(how, tf.reduce_mean(tf.square(x - mean), axes))
    return tf.squeeze(mean, axes), variance
