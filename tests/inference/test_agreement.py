"""bf16 is trusted as a model's card says for this machine, or as an earlier scan showed, and checked else."""

import os
from pathlib import Path

import keras
import narrow_encoder
import numpy as np
import pytest
from inference_networks import voxels

from planar3d.inference import agreement
from planar3d.inference.agreement import keep_agreement, known_agreement
from planar3d.inference.predictor import predictor
from planar3d.inference.shared import SharedInference
from planar3d.networks.registry import recipe_network
from planar3d.networks.weights_file import Model, save_weights
from planar3d.recipes import PAPER

pytest.importorskip("openvino")
TINY = PAPER.changed(size=32, encoder=narrow_encoder.NAME, decoder_filters=(4, 4), bridge_filters=4)
HERE = {"instructions": "amx_bf16", "openvino": "2026.4.1"}


@pytest.fixture(autouse=True)
def _machine(monkeypatch, tmp_path):
    from planar3d.inference import openvino_engine

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(openvino_engine, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(agreement, "bf16_instructions", lambda: HERE["instructions"])
    monkeypatch.setattr(agreement, "version", lambda package: HERE["openvino"])


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    keras.utils.set_random_seed(0)
    said = [HERE | {"instructions": "avx512_bf16", "least": 0.5}, HERE | {"least": 0.9979}]
    path = tmp_path_factory.mktemp("model") / "tiny.weights.h5"
    return Model.open(save_weights(recipe_network(TINY), path, TINY, {"agreement": said}))


def test_a_card_is_believed_for_its_instructions_and_version_and_its_own_rule(published, monkeypatch):
    assert known_agreement(published) == (0.9979, "as published for amx_bf16 and OpenVINO 2026.4.1")
    assert known_agreement(Model.open(published, TINY.changed(threshold=3))) is None
    monkeypatch.setattr(agreement, "version", lambda package: "2027.0")
    assert known_agreement(published) is None


def test_what_a_scan_showed_counts_for_the_same_weights_rule_and_machine(published, monkeypatch):
    model, other = Model.open(published, TINY.changed(threshold=3)), Model.open(published, TINY.changed(threshold=4))
    keep_agreement(model, 0.75)
    assert known_agreement(model) == (0.75, "from an earlier scan") and known_agreement(other) is None
    monkeypatch.setattr(agreement, "processor", lambda: "another one")
    assert known_agreement(model) is None


@pytest.mark.parametrize("dice", ["true", "NaN", "1.5", "-1.0", '"0.999"', "[" * 100_000])
def test_a_damaged_verdict_is_none(published, dice):
    model = Model.open(published, TINY.changed(threshold=3))
    keep_agreement(model, 0.75)
    (kept,) = Path(os.environ["XDG_CACHE_HOME"]).rglob("agreement/*.json")
    kept.write_text(f'{{"dice": {dice}}}')
    assert known_agreement(model) is None


def test_what_is_known_spares_the_check_and_the_record_says_so(published, monkeypatch):
    monkeypatch.setattr(SharedInference, "middle", lambda *_: pytest.fail("it was checked"))
    predict = predictor(published, TINY)
    assert predict.description == (
        "shared on OpenVINO, bf16; bf16 agrees with float32 (Dice of the masks 0.9979, as published for amx_bf16 and "
        "OpenVINO 2026.4.1)"
    )
    scan = voxels(16, 32)
    np.testing.assert_array_equal(predict(scan), predictor(published, TINY, engine="openvino", precision="bf16")(scan))


def test_a_first_scan_is_checked_and_its_verdict_is_kept(published, monkeypatch):
    model = Model.open(published, TINY.changed(threshold=125))
    monkeypatch.setattr(agreement, "AGREEMENT", 1.1)
    first = predictor(model, model.recipe)
    assert "if the first scan's mask agrees" in first.description
    first(voxels(16, 32))
    assert first.description.startswith("shared on OpenVINO, float32; bf16 does not agree")
    again = predictor(model, model.recipe).description
    assert again.startswith(first.description.removesuffix(")")) and again.endswith("from an earlier scan)")


def test_masks_that_are_nearly_empty_decide_for_no_other_scan(published):
    model, scan = Model.open(published, TINY.changed(threshold=255)), voxels(16, 32)
    predict = predictor(model, model.recipe)
    np.testing.assert_array_equal(predict(scan), predictor(model, model.recipe, "shared", "openvino", "bf16")(scan))
    assert not predict.in_bf16._programs and not predict.in_float32._programs  # both at once would be too large
    assert known_agreement(model) is None
    assert predict.description == (
        "shared on OpenVINO, bf16; bf16 agrees with float32 on this scan, whose mask is too small to decide for others"
    )


def test_a_scan_that_decides_for_no_other_is_predicted_as_its_description_says(published, monkeypatch):
    model, scan = Model.open(published, TINY.changed(threshold=255)), voxels(16, 32)
    monkeypatch.setattr(agreement, "AGREEMENT", 1.1)
    predict = predictor(model, model.recipe)
    np.testing.assert_array_equal(predict(scan), predictor(model, model.recipe, "shared", "openvino", "float32")(scan))
    assert predict.description.startswith("shared on OpenVINO, float32; bf16 does not agree with float32 on this scan")
