"""Training stops, keeps, freezes and resumes as the recipe says."""

from types import SimpleNamespace

import h5py
import keras
import narrow_encoder
import numpy as np
import pytest
from samples_of import split

from planar3d.errors import RecipeError, RunError
from planar3d.networks.weights_file import load_network
from planar3d.recipes import MODERN, PAPER, RECIPES
from planar3d.training.backends import make_deterministic
from planar3d.training.crops import CropSamples
from planar3d.training.devices import Devices
from planar3d.training.features import FeatureSamples, check_cacheable, compute_features, decoder_of, encoder_of
from planar3d.training.fit import compiled, fit
from planar3d.training.initialization import initial_network
from planar3d.training.losses import BceMinusDice
from planar3d.training.precision import precision_of
from planar3d.training.samples import ScanSamples
from planar3d.training.trainer import trainer_of

TINY = PAPER.changed(
    **{"size": 16, "encoder": narrow_encoder.NAME, "encoder_weights": "none", "bridge_filters": 4},
    **{"decoder_filters": (4, 4), "epochs": 4, "learning_rate": 1e-3},
)
# Losses of the same class and activation differ only in fields that other tests vary.
ONE_OF_EACH_LOSS = {
    (type(r.training.loss), r.training.loss.to_json().get("cross_entropy"), r.targets.activation): r
    for r in RECIPES.values()
}.values()


@pytest.fixture(scope="module")
def scans():
    """Three scans in which the brightest places are the lesions."""
    rng = np.random.default_rng(0)
    voxels = []
    for _ in range(3):
        volume = rng.integers(0, 100, (32, 16, 16), np.uint8)
        z, r, c = rng.integers((8, 4, 4), (20, 9, 9))
        volume[z : z + 6, r : r + 3, c : c + 3] = 250
        voxels.append(volume)
    return [v[..., None] for v in voxels], [(v > 200).astype(np.uint8) for v in voxels]


def _train(scans, recipe, folder, notify=lambda text: None, twin=trainer_of, train=2):
    make_deterministic()
    network = initial_network(recipe)
    training, validation = split(train, 1, len(scans[0][0]), recipe)
    progress = fit(network, twin(network), ScanSamples(*scans, recipe), training, validation, recipe, folder, notify)
    return network, progress


def _plain(network):
    return network


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("name", [recipe.name for recipe in ONE_OF_EACH_LOSS])
def test_the_loss_in_training_is_that_of_the_probabilities(name):
    recipe, rng = RECIPES[name].changed(precision="float32"), np.random.default_rng(0)
    targets = recipe.targets.encode(rng.choice(sorted({0}.union(*recipe.targets.channels)), (2, 4, 4, 4)))
    inputs = rng.normal(0, 1, (2, 4, 4, 4, 2)).astype(np.float32)
    given = keras.Input((4, 4, 4, 2))
    network = keras.Model(given, keras.layers.Conv3D(targets.shape[-1], 1, activation=recipe.targets.activation)(given))
    expected = recipe.training.loss(targets, network(inputs).numpy())
    found = compiled(network, recipe).test_on_batch(inputs, targets, return_dict=True)["loss"]
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch_size": 2}, "The loss became nan in epoch 1"),
        ({"batch_size": 100, "beta_2": 0.0}, "Weights became infinite or nan in epoch 1"),
        ({"batch_size": 100, "epochs": 1}, "val_loss was nan in every epoch, so no weights were kept"),
    ],
)
def test_a_training_that_diverges_is_told_and_leaves_no_weights(changes, sentence, scans, tmp_path):
    recipe = TINY.changed(learning_rate=3e38, **changes)
    for _ in range(2):  # also when it is started again
        with pytest.raises(RunError, match=rf"{sentence}\. Lower the learning rate \(3e\+38\)"):
            _train(scans, recipe, tmp_path)
    assert not (tmp_path / "training.json").exists() and not (tmp_path / "best.weights.h5").exists()


class _KilledError(Exception):
    pass


def _kill_after(epochs):
    seen = []

    def notify(text):
        seen.append(text)
        if sum(line.startswith("epoch") for line in seen) == epochs:
            raise _KilledError

    return notify


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow traces")
def test_a_training_step_is_traced_once(monkeypatch):
    traces, call = [], BceMinusDice.__call__
    monkeypatch.setattr(BceMinusDice, "__call__", lambda *given: traces.append(given) or call(*given))
    inputs = keras.Input((4, 4, 4, 1))
    network = keras.Model(inputs, keras.layers.Conv3D(1, 1, activation="sigmoid")(inputs))
    trainer = compiled(network, TINY)
    for _ in range(2):
        assert trainer.train_on_batch(*np.ones((2, 2, 4, 4, 4, 1)), return_dict=True).keys() == {"loss", "dice"}
    assert len(traces) == 1


def test_a_killed_run_in_bf16_ends_with_the_weights_of_an_uninterrupted_one(scans, tmp_path, untraced, with_bf16):
    recipe = TINY.changed(shuffle="every epoch", precision="bf16", epochs=2)
    whole, progress = _train(scans, recipe, tmp_path / "whole", train=1)
    with pytest.raises(_KilledError):
        _train(scans, recipe, tmp_path / "killed", _kill_after(1), train=1)
    assert (tmp_path / "killed/backup/state.npz").is_file()
    resumed, again = _train(scans, recipe, tmp_path / "killed", train=1)
    for a, b in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in p.history] for p in (progress, again)]
    assert rows[0] == rows[1] and len(rows[0]) == 2
    assert not (tmp_path / "killed/backup").exists()


@pytest.mark.parametrize("there", ["avx512_bf16", "none"])
def test_a_run_begun_on_another_processor_is_gone_on_with(scans, tmp_path, untraced, monkeypatch, there):
    recipe, tell = TINY.changed(precision="bf16", epochs=2), "planar3d.training.precision.bf16_instructions"
    monkeypatch.setattr(tell, lambda: there)
    with pytest.raises(_KilledError):
        _train(scans, recipe, tmp_path, _kill_after(1), train=1)
    monkeypatch.setattr(tell, lambda: "none" if there != "none" else "avx512_bf16")
    network, progress = _train(scans, recipe, tmp_path, train=1)
    assert precision_of(network) == ("float32" if there != "none" else "bf16")
    assert len(progress.history) == 2 and np.isfinite(progress.history[1]["loss"])


def test_a_killed_run_on_crops_sees_the_crops_it_would_have_seen(scans, tmp_path, untraced):
    recipe = MODERN.changed(
        **{name: getattr(TINY, name) for name in ("encoder", "decoder_filters", "bridge_filters", "encoder_weights")},
        epochs=3,
        crop=16,
        crops_per_epoch=3,
        warmup_steps=3,
        precision="float32",
    )

    def train(folder, notify=lambda text: None):
        network = initial_network(recipe)
        samples = CropSamples(*scans, recipe)
        training, validation = split(3, 0, len(scans[0][0]), recipe)
        progress = fit(network, trainer_of(network), samples, training, validation, recipe, folder, notify)
        return network, progress

    whole, progress = train(tmp_path / "whole")
    with pytest.raises(_KilledError):
        train(tmp_path / "killed", _kill_after(1))
    resumed, again = train(tmp_path / "killed")
    for a, b in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    assert [row["loss"] for row in progress.history] == [row["loss"] for row in again.history]
    # Nothing validates, so that the last weights are kept; the rate has risen and fallen.
    assert progress.best_epoch == 3 and np.isnan(progress.history[0]["val_loss"])
    rates = [row["learning_rate"] for row in progress.history]
    assert rates[0] < rates[1] > rates[2]
    kept, _ = load_network(tmp_path / "whole/best.weights.h5")
    for a, b in zip(whole.weights, kept.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def _with_statistics_and_chance():
    """A small network whose training changes more than its trainable weights."""
    inputs = keras.Input((16, 16, 16, 3), name="input")
    x = keras.layers.Conv3D(4, 3, padding="same", name="first")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9, name="norm")(x)
    inner = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Dropout(0.3, name="drop")], name="inner")
    x = keras.layers.GaussianNoise(0.1, name="noise")(inner(x))
    x = keras.layers.Conv3D(2, 1, activation="relu", name="second")(x)
    return keras.Model(inputs, keras.layers.Conv3D(1, 1, activation="sigmoid", dtype="float32", name="conv10")(x))


def _train_small(scans, folder, notify=lambda text: None, build=_with_statistics_and_chance, recipe=TINY):
    folder.mkdir(exist_ok=True)
    make_deterministic()
    keras.utils.set_random_seed(recipe.seed)
    network = build()
    training, validation = split(2, 1, len(scans[0][0]), recipe)
    samples = ScanSamples(*scans, recipe)
    return network, fit(network, trainer_of(network), samples, training, validation, recipe, folder, notify)


def test_a_killed_run_keeps_batch_statistics_and_the_states_of_random_layers(scans, tmp_path, monkeypatch, untraced):
    # The small network is none of the recipe's, so its best weights are kept without the recipe.
    monkeypatch.setattr("planar3d.training.fit.save_weights", lambda network, path, *_: network.save_weights(path))
    whole, progress = _train_small(scans, tmp_path / "whole")
    with pytest.raises(_KilledError):
        _train_small(scans, tmp_path / "killed", _kill_after(2))
    resumed, again = _train_small(scans, tmp_path / "killed")
    assert [row["loss"] for row in progress.history] == [row["loss"] for row in again.history]
    assert len(whole.variables) > len(whole.trainable_variables) + 3
    for a, b in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    assert not np.array_equal(whole.get_layer("norm").moving_mean, np.zeros(4))


def test_a_run_is_not_resumed_with_another_network_or_from_damaged_bytes(scans, tmp_path, monkeypatch, untraced):
    monkeypatch.setattr("planar3d.training.fit.save_weights", lambda network, path, *_: network.save_weights(path))
    with pytest.raises(_KilledError):
        _train_small(scans, tmp_path, _kill_after(1))

    def other(rename):
        def build():
            network = _with_statistics_and_chance()
            for layer in network.layers:
                layer.name = rename.get(layer.name, layer.name)
            return keras.models.clone_model(network)

        return build

    with pytest.raises(RunError, match=r"network/norm/beta is only in the checkpoint.*Delete .* from the start"):
        _train_small(scans, tmp_path, build=other({"norm": "renamed"}))
    state = tmp_path / "backup/state.npz"
    state.write_bytes(state.read_bytes()[:-200])
    with pytest.raises(RunError, match=r"Training cannot resume from"):
        _train_small(scans, tmp_path)


def _train_by_losses(losses, folder, recipe, notify=lambda text: None):
    """Train one weight, which each epoch sets to its number, where the losses are given by epoch."""
    given = keras.Input((1,))
    network = keras.Model(given, keras.layers.Dense(1, "sigmoid", name="only")(given))
    folder.mkdir(exist_ok=True)

    def steps(trainer):
        def train(inputs, targets, return_dict):
            epoch = int(inputs[0]) + 1
            network.layers[1].kernel.assign([[epoch]])
            return {"loss": losses[epoch - 1], "dice": -losses[epoch - 1]}

        return SimpleNamespace(optimizer=trainer.optimizer, train_on_batch=train, test_on_batch=train)

    class Numbered:
        def batch(self, numbers):
            return numbers, numbers

    recipe = recipe.changed(samples="crops", crops_per_epoch=1, epochs=len(losses))
    progress = fit(
        network, network, Numbered(), np.arange(1), np.arange(0), recipe, folder, notify, None, Devices(steps=steps)
    )
    return progress, [row["learning_rate"] for row in progress.history]


@pytest.mark.parametrize(("monitor", "best"), [("loss", 3), ("dice", 3), ("last", 5)])
def test_the_weights_kept_are_those_of_the_best_epoch_of_each_monitor(monitor, best, tmp_path, monkeypatch):
    monkeypatch.setattr("planar3d.training.fit.save_weights", lambda network, path, *_: network.save_weights(path))
    progress, _ = _train_by_losses([3.0, 4.0, 1.0, 1.0, 2.0], tmp_path, TINY.changed(monitor=monitor, patience=0))
    with h5py.File(tmp_path / "best.weights.h5") as kept:
        assert kept["layers/dense/vars/0"][()] == best == progress.best_epoch


def test_a_killed_run_keeps_what_its_plateau_has_waited(tmp_path, monkeypatch):
    monkeypatch.setattr("planar3d.training.fit.save_weights", lambda network, path, *_: network.save_weights(path))
    recipe = TINY.changed(schedule="plateau", plateau=2, factor=0.5, learning_rate=1.0, monitor="loss")
    _, rates = _train_by_losses([3.0] * 6, tmp_path / "whole", recipe)
    assert rates == [1, 1, 1, 0.5, 0.5, 0.25]
    with pytest.raises(_KilledError):
        _train_by_losses([3.0] * 6, tmp_path / "killed", recipe, _kill_after(2))
    assert _train_by_losses([3.0] * 6, tmp_path / "killed", recipe)[1] == rates


def test_the_trainer_trains_as_the_plain_network_does(scans, tmp_path, untraced):
    recipe = TINY.changed(epochs=1)
    _, plain = _train(scans, recipe, tmp_path / "plain", twin=_plain)
    _, fast = _train(scans, recipe, tmp_path / "fast")
    for a, b in zip(plain.history, fast.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-3)


def test_a_finished_run_is_not_run_again(scans, tmp_path, untraced):
    _, first = _train(scans, TINY.changed(epochs=1), tmp_path)

    def never(text):
        raise AssertionError(text)

    _, second = _train(scans, TINY.changed(epochs=1), tmp_path, never)
    assert second.history[0]["loss"] == pytest.approx(first.history[0]["loss"])


def test_the_best_epoch_s_weights_are_kept_and_patience_ends_the_run(scans, tmp_path, untraced):
    # At this rate the network is thrown about, so that the last epoch is not the best.
    recipe = TINY.changed(learning_rate=0.3, patience=2, epochs=12)
    network, progress = _train(scans, recipe, tmp_path, train=1)
    losses = [row["val_loss"] for row in progress.history]
    assert progress.best_epoch == int(np.argmin(losses)) + 1
    assert len(losses) == min(progress.best_epoch + 2, 12)
    network.load_weights(tmp_path / "best.weights.h5")
    samples = ScanSamples(*scans, recipe)
    _, validation = split(1, 1, len(scans[0][0]), recipe)
    from planar3d.training.losses import BceMinusDice

    batches = [validation[i : i + 2] for i in range(0, len(validation), 2)]
    values = [float(BceMinusDice()(samples.targets(b), network(samples.inputs(b)))) for b in batches]
    assert np.average(values, weights=[len(b) for b in batches]) == pytest.approx(min(losses), rel=1e-4)


def test_training_lowers_the_loss_and_leaves_the_frozen_encoder_alone(scans, tmp_path, untraced):
    before = {v.path: np.array(v) for v in initial_network(TINY).weights}
    network, progress = _train(scans, TINY.changed(epochs=2), tmp_path)
    assert progress.history[-1]["loss"] < progress.history[0]["loss"]
    for v in network.weights:
        changed = not np.array_equal(before[v.path], v)
        assert changed == (not v.path.startswith("block")), v.path


def test_the_learning_rate_decays_as_in_keras_2(scans, tmp_path, untraced):
    recipe = TINY.changed(decay=0.1, epochs=2)
    _, progress = _train(scans, recipe, tmp_path, train=1)
    steps = -(-len(split(1, 1, len(scans[0][0]), recipe)[0]) // recipe.batch_size)
    assert progress.history[1]["learning_rate"] == pytest.approx(1e-3 / (1 + 0.1 * steps), rel=1e-5)


def test_groups_and_single_layers_are_frozen_by_name():
    network = initial_network(TINY.changed(frozen=("encoder", "bridge", "conv71")))
    frozen = {layer.name for layer in network.layers if hasattr(layer, "kernel") and not layer.trainable}
    assert frozen == {n for n in (layer.name for layer in network.layers) if "block" in n and "conv" in n} | {
        "conv51",
        "conv52",
        "conv71",
    }


def test_the_output_prior_is_what_an_untrained_network_says():
    network = initial_network(TINY.changed(output_prior=0.01))
    network.get_layer("conv10").kernel.assign(keras.ops.zeros_like(network.get_layer("conv10").kernel))
    assert float(network(np.zeros((1, 16, 16, 16, 3), np.float32))[0, 0, 0, 0, 0]) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(("borders", "depth"), [("scan", 16), ("none", 16), ("scan", 24)])
def test_cached_features_give_the_network_s_own_output(scans, tmp_path, borders, depth):
    recipe = TINY.changed(cached_features="float32", window_borders=borders, depth=depth)
    network = initial_network(recipe)
    encoder = encoder_of(network, recipe)
    features = [compute_features(encoder, v, tmp_path / str(i), recipe) for i, v in enumerate(scans[0])]
    direct = ScanSamples(*scans, recipe)
    cached = FeatureSamples(features, direct)
    decoder = decoder_of(network, recipe)
    for window in range(len(direct.windows)):
        expected = network(direct.inputs([window]))
        np.testing.assert_allclose(decoder(cached.inputs([window])), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(direct.targets([1]), cached.targets([1]))


def test_features_kept_in_bf16_are_those_a_bf16_network_computes(scans, tmp_path, with_bf16):
    network = initial_network(TINY.changed(precision="bf16"))
    encoder, decoder = encoder_of(network, TINY), decoder_of(network, TINY)

    def inputs(kept: str, precision: str = "bf16") -> list[np.ndarray]:
        recipe = TINY.changed(precision=precision, cached_features=kept)
        features = [compute_features(encoder, v, tmp_path / kept / str(i), recipe) for i, v in enumerate(scans[0])]
        return FeatureSamples(features, ScanSamples(*scans, recipe)).inputs([1, 2])

    narrow, again, wide = inputs("bf16"), inputs("bf16"), inputs("float32")  # again: from the files
    for levels in zip(narrow, again, wide, inputs("bf16", precision="float32"), strict=True):
        assert [level.dtype.name for level in levels] == ["bfloat16", "bfloat16", "float32", "float32"]
        for level in levels[1:]:
            np.testing.assert_array_equal(levels[0].astype(np.float32), level.astype(np.float32))
    np.testing.assert_array_equal(decoder(narrow), decoder(wide))


def test_features_of_another_encoder_or_of_other_voxels_are_computed_again(scans, tmp_path):
    recipe = TINY.changed(cached_features="float32")
    one, other = (encoder_of(initial_network(recipe.changed(seed=seed)), recipe) for seed in (0, 1))
    stored = recipe.changed(cached_features="float16")
    made = (
        (one, scans[0][0], recipe),
        (other, scans[0][0], recipe),
        (other, scans[0][1], recipe),
        (other, scans[0][1], stored),
    )
    for number, (encoder, voxels, kept) in enumerate(made):
        expected = compute_features(encoder, voxels, tmp_path / str(number), kept)
        for ours, theirs in zip(compute_features(encoder, voxels, tmp_path / "one", kept), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / "one").iterdir())]
    compute_features(*made[-1][:2], tmp_path / "one", stored)
    assert times == [path.stat().st_mtime_ns for path in sorted((tmp_path / "one").iterdir())]


def test_features_are_cached_only_where_they_are_exact(scans, tmp_path):
    check_cacheable(TINY.changed(cached_features="float16"))
    check_cacheable(TINY.changed(cached_features="none", frozen=()))
    check_cacheable(TINY.changed(cached_features="float32", window_borders="none"))  # its scans are whole strides
    with pytest.raises(RecipeError, match="frozen"):
        check_cacheable(TINY.changed(cached_features="float16", frozen=("bridge",)))
    with pytest.raises(RecipeError, match="multiples of 8"):
        check_cacheable(PAPER.changed(cached_features="float16", stride=4))
    with pytest.raises(RecipeError, match="planar encoder"):
        check_cacheable(TINY.changed(cached_features="float16", encoder_depth=3))
    beyond = PAPER.changed(cached_features="float16", depth=48, stride=32)
    with pytest.raises(RecipeError, match="48 slices at stride 32 extend beyond its 96 slices"):
        check_cacheable(beyond.changed(size=96))
    check_cacheable(beyond.changed(size=80))
    with pytest.raises(RecipeError, match="beyond its 80 slices"):  # of two scans as one
        check_cacheable(beyond.changed(size=80, window_borders="none"))
