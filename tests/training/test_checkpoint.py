"""A saved epoch: whatever becomes of its bytes, it fills a network or is refused, and never half."""

import json
import random

import keras
import numpy as np
import pytest

from planar3d.errors import RunError
from planar3d.files import write_json
from planar3d.training.checkpoint import HISTORY_COLUMNS, TrainingProgress, finish, finished_progress, restore, save
from planar3d.training.schedules import PlateauState


def _network(value, width=3, dtype="float32"):
    dense, norm = keras.layers.Dense(width, dtype=dtype, name="dense"), keras.layers.BatchNormalization(name="norm")
    network = keras.Sequential([keras.Input((4,)), dense, norm], name="small")
    for variable in network.variables:
        variable.assign(np.full(variable.shape, value))
    optimizer = keras.optimizers.Adam()
    optimizer.build(network.trainable_variables)
    return network, optimizer


def test_damaged_bytes_are_refused_with_a_sentence_and_fill_nothing(tmp_path):
    save(tmp_path, *_network(1.0), TrainingProgress(epoch=3))
    state = tmp_path / "backup/state.npz"
    whole = state.read_bytes()
    chance = random.Random(0)
    network, optimizer = _network(2.0)
    outcomes = set()
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 4])):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        state.write_bytes(damaged if chance.random() < 0.9 else damaged[: chance.randrange(len(damaged))])
        before = [np.array(v) for v in network.variables]
        try:
            outcomes.add(restore(tmp_path, network, optimizer).epoch)
        except RunError as error:
            outcomes.add("refused")
            assert "cannot resume from" in str(error)
            for a, b in zip(before, network.variables, strict=True):
                np.testing.assert_array_equal(a, b)
    assert outcomes == {"refused", 3}


def test_bf16_variables_are_restored_exactly(tmp_path):
    save(tmp_path, *_network(1.5, dtype="bfloat16"), TrainingProgress(epoch=3))
    network, optimizer = _network(2.0, dtype="bfloat16")
    assert restore(tmp_path, network, optimizer).epoch == 3
    assert network.variables[0].dtype == "bfloat16" and np.all(np.array(network.variables[0], float) == 1.5)


def test_variables_of_another_shape_are_refused_and_fill_nothing(tmp_path):
    save(tmp_path, *_network(1.0), TrainingProgress(epoch=3))
    network, optimizer = _network(2.0, width=4)
    with pytest.raises(RunError, match=r"dense/kernel has the shape \(4, 3\) in the checkpoint and \(4, 4\) now"):
        restore(tmp_path, network, optimizer)
    assert all(np.all(variable == 2) for variable in network.variables)


def test_a_training_ends_also_where_a_user_has_put_a_file_beside_its_last_epoch(tmp_path):
    save(tmp_path, *_network(1.0), TrainingProgress(epoch=3))
    (tmp_path / "backup/notes.txt").touch()
    finish(tmp_path, TrainingProgress(epoch=3))
    assert [path.name for path in (tmp_path / "backup").iterdir()] == ["notes.txt"]
    (tmp_path / "backup/state.npz").touch()  # as by a process that was killed while it ended
    assert finished_progress(tmp_path).epoch == 3
    assert [path.name for path in (tmp_path / "backup").iterdir()] == ["notes.txt"]


def test_a_damaged_learning_curve_is_named_and_deleting_it_helps(tmp_path):
    finish(tmp_path, TrainingProgress(epoch=3))
    (tmp_path / "history.csv").write_text("epoch,loss\n1,oops\n")
    with pytest.raises(RunError, match=r"history\.csv is damaged .*'oops'.* Delete it"):
        finished_progress(tmp_path)
    (tmp_path / "history.csv").unlink()
    assert finished_progress(tmp_path).epoch == 3


def test_best_weights_that_are_gone_are_said_before_more_is_trained_or_scored(tmp_path):
    progress = TrainingProgress(epoch=3, best_epoch=2)
    gone = r"best\.weights\.h5, .* epoch 2, is missing\. Put it back, or"
    network, optimizer = _network(1.0)
    save(tmp_path, network, optimizer, progress)
    network.variables[0].assign_add(np.ones(network.variables[0].shape))
    with pytest.raises(RunError, match=gone):
        restore(tmp_path, network, optimizer)
    assert np.all(network.variables[0] == 2)
    finish(tmp_path, progress)
    with pytest.raises(RunError, match=gone):
        finished_progress(tmp_path)
    (tmp_path / "best.weights.h5").touch()
    assert finished_progress(tmp_path).best_epoch == 2


@pytest.mark.parametrize(
    "changed",
    [{"epoch": 3.5}, {"epoch": -1}, {"best": []}, {"best_epoch": None}, {"plateau": 1}, {"plateau": {"rate": "1"}}],
)
def test_progress_that_is_not_in_numbers_is_refused(tmp_path, changed):
    save(tmp_path, *_network(1.0), TrainingProgress(epoch=3, plateau=PlateauState(0.1)))
    state = tmp_path / "backup/state.npz"
    with np.load(state) as stored:
        arrays = dict(stored)
    content = json.loads(arrays["progress"].tobytes()) | changed
    np.savez(state, **arrays | {"progress": np.frombuffer(json.dumps(content).encode(), np.uint8)})
    with pytest.raises(RunError, match="cannot resume from"):
        restore(tmp_path, *_network(2.0))
    finish(tmp_path, TrainingProgress(epoch=3))
    write_json(tmp_path / "training.json", {"epoch": 3, "best": 0.5, "best_epoch": 0, "plateau": None} | changed)
    with pytest.raises(RunError, match=r"training\.json is not in the form"):
        finished_progress(tmp_path)


@pytest.mark.parametrize("row", [{"loss": 0.5}, {**dict.fromkeys(HISTORY_COLUMNS, 1.0), "f1": 0.5}])
def test_a_learning_curve_with_other_columns_is_refused_before_more_is_trained(tmp_path, row):
    trained = _network(1.0)
    save(tmp_path, *trained, TrainingProgress(epoch=1))
    state = tmp_path / "backup/state.npz"
    with np.load(state) as stored:
        arrays = dict(stored)
    content = json.loads(arrays["progress"].tobytes()) | {"history": [row]}
    np.savez(state, **arrays | {"progress": np.frombuffer(json.dumps(content).encode(), np.uint8)})
    with pytest.raises(RunError, match=r"the columns of its learning curve differ from planar3d's: .*(dice|f1)"):
        restore(tmp_path, *trained)


@pytest.mark.parametrize("content", ["[1]", '"a"', "1", "[" * 100_000])
def test_progress_of_another_form_and_variables_that_are_text_are_refused(tmp_path, content):
    network, optimizer = _network(2.0)
    save(tmp_path, network, optimizer, TrainingProgress(epoch=3))
    state = tmp_path / "backup/state.npz"
    with np.load(state) as stored:
        arrays = dict(stored)
    for other in (
        {"progress": np.frombuffer(content.encode(), np.uint8)},
        {name: np.full(array.shape, "x") for name, array in arrays.items() if name != "progress"},
    ):
        np.savez(state, **arrays | other)
        with pytest.raises(RunError, match="cannot resume from"):
            restore(tmp_path, network, optimizer)


class _Trap:
    """Unpickling it raises the alarm."""

    sprung = False

    def __reduce__(self):
        return setattr, (_Trap, "sprung", True)


def test_pickled_variables_are_refused_and_not_unpickled(tmp_path):
    network, optimizer = _network(2.0)
    save(tmp_path, network, optimizer, TrainingProgress(epoch=3))
    np.savez(tmp_path / "backup/state.npz", progress=np.array([_Trap()], object))
    with pytest.raises(RunError, match="cannot resume from"):
        restore(tmp_path, network, optimizer)
    assert not _Trap.sprung
