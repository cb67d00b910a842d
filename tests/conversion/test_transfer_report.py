"""The report tells what every parameter was made of, on paper, in a frame, and in the card beside the file."""

import errno
import json
import os
import shutil

import keras
import pytest
from flat_networks import assert_same, network_of, run, volume
from keras import layers
from numpy.testing import assert_allclose

from planar3d.conversion import transfer_report
from planar3d.conversion.convert import convert
from planar3d.conversion.transfer_report import save_converted
from planar3d.errors import ConversionError
from planar3d.locks import holder_of
from planar3d.transfer.digests import file_sha256

SAID = {"provenance": "random, for this test", "licence": "CC0-1.0"}


@pytest.fixture
def volumes():
    return convert(
        network_of(
            layers.Normalization(mean=[0.0, 1.0, 2.0], variance=[1.0, 1.0, 1.0], name="normalize"),
            layers.Conv2D(4, 3, name="wide"),
            layers.BatchNormalization(name="norm"),
            layers.SeparableConv2D(5, 3, name="separable"),
            layers.ReLU(name="relu"),
            shape=(8, 8, 3),
        ),
        {"wide": "average"},
        in_channels=1,
    )


def test_a_row_tells_source_target_shapes_and_mapping(volumes):
    row = next(row for row in volumes.transfer_report.rows if row.target == "wide")
    assert (row.source, row.source_type, row.target_type, row.mapping) == ("wide", "Conv2D", "Conv3D", "average 3")
    assert row.source_shapes == ((3, 3, 3, 4), (4,)) and row.target_shapes == ((3, 3, 3, 3, 4), (4,))
    assert row.parameters == row.transferred == 3 * 3 * 3 * 3 * 4 + 4


def test_all_layers_with_their_parameters_are_accounted_for(volumes):
    report = volumes.transfer_report
    assert report.parameters == volumes.count_params()
    assert {row.target for row in report.rows} == {layer.name for layer in volumes.layers[1:]}
    assert report.share == pytest.approx(1 - 3 / volumes.count_params())  # the three numbers that spread the channel


def test_on_paper_it_lists_the_layers_with_weights_and_a_total(volumes):
    lines = str(volumes.transfer_report).splitlines()
    assert lines[0] == "flat → flat_3d"
    assert any("separable (SeparableConv2D)" in line and "separable_depthwise (Conv3D)" in line for line in lines)
    assert f"of {volumes.count_params():,} parameters transferred" in lines[-1]


def test_a_frame_has_a_row_for_each_layer(volumes):
    frame = volumes.transfer_report.to_frame()
    assert set(frame.target) == {layer.name for layer in volumes.layers[1:]}
    assert frame.set_index("target").share["image_channels"] == 0
    assert frame.transferred.sum() == round(volumes.transfer_report.share * volumes.count_params())


@pytest.mark.parametrize("name", ["volumes.keras", "volumes.weights.h5"])
def test_the_card_beside_the_file_tells_origin_licence_digest_and_report(volumes, tmp_path, name):
    path = tmp_path / name
    card = json.loads(save_converted(volumes, path, **SAID).read_text())
    assert (tmp_path / "volumes.card.json").is_file() and len(list(tmp_path.iterdir())) == 2
    assert card["provenance"] == SAID["provenance"] and card["licence"] == SAID["licence"]
    assert card["sha256"] == file_sha256(path)
    assert {layer["target"] for layer in card["transfer"]["layers"]} >= {"wide", "norm", "separable"}


@pytest.mark.parametrize("name", ["volumes.keras", "volumes.weights.h5"])
def test_a_full_disk_is_told_before_hdf5_writes(volumes, tmp_path, monkeypatch, name):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 100, 0))
    with pytest.raises(OSError, match=rf"No space left on device.*{name}"):
        save_converted(volumes, tmp_path / name, **SAID)
    assert not any(tmp_path.iterdir())


def test_a_file_and_its_card_are_of_one_process(volumes, tmp_path, monkeypatch):
    """Another process that saves under the same name meanwhile waits until both are written."""
    path, taken = tmp_path / "volumes.keras", []

    def save(written):
        keras.Model.save(volumes, written)
        taken.append(holder_of(path.with_name(".claim-volumes.card.json")))

    monkeypatch.setattr(volumes, "save", save)
    card = json.loads(save_converted(volumes, path, **SAID).read_text())
    assert taken[0].pid == os.getpid() and card["sha256"] == file_sha256(path)


def test_a_card_that_cannot_be_written_leaves_the_former_file(volumes, tmp_path, monkeypatch):
    card = save_converted(volumes, tmp_path / "volumes.keras", **SAID)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    volumes.get_layer("wide").bias.assign([1.0, 2.0, 3.0, 4.0])

    def refuse(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(transfer_report, "write_json", refuse)
    with pytest.raises(OSError, match=f"No space left on device: '{card}'"):
        save_converted(volumes, tmp_path / "volumes.keras", **SAID)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_saved_network_is_the_network(volumes, tmp_path):
    save_converted(volumes, tmp_path / "volumes.keras", **SAID)
    voxels = volume(1, 4, 8, 8, 1)
    read = keras.saving.load_model(tmp_path / "volumes.keras", safe_mode=True)
    assert_same(read, volumes)
    # A converted network computes depthwise convolutions on images, a file's is Keras' own: to rounding the same.
    assert_allclose(run(read, voxels), run(volumes, voxels), rtol=1e-4, atol=1e-6)


def test_the_digest_of_the_arrays_follows_the_arrays_alone(volumes, tmp_path):
    def digest(name):
        return json.loads(save_converted(volumes, tmp_path / name, **SAID).read_text())["weights_sha256"]

    first = digest("a.keras")
    assert digest("b.weights.h5") == first
    volumes.get_layer("wide").bias.assign([1.0, 2.0, 3.0, 4.0])
    assert digest("c.keras") != first


def test_what_cannot_be_written_is_refused(volumes, tmp_path):
    with pytest.raises(ConversionError, match=r"\.keras or \.weights\.h5"):
        save_converted(volumes, tmp_path / "volumes.pt", **SAID)
    with pytest.raises(ConversionError, match="provenance"):
        save_converted(volumes, tmp_path / "volumes.keras", provenance=" ", licence="MIT")
    with pytest.raises(ConversionError, match="not made by convert"):
        save_converted(network_of(layers.Conv2D(3, 3)), tmp_path / "volumes.keras", **SAID)
    assert not list(tmp_path.iterdir())
