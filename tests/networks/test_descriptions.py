"""A stored description is used only if its layers, sizes and arrays fit each other and the file."""

import copy
import json

import h5py
import numpy as np
import pytest

from planar3d.errors import WeightsError
from planar3d.networks.descriptions import from_json
from planar3d.transfer.metadata import read_description, write_metadata
from planar3d.transfer.rehearsal import rehearse

WINDOW = (4, 8, 8, 2)
SLIDING = {
    **{"kernel_size": [1, 3, 3], "strides": [1, 1, 1], "padding": "same", "dilation_rate": [1, 1, 1]},
    **{"use_bias": True, "activation": "relu", "data_format": "channels_last", "rank": 3},
}
SAID = {
    "version": 1,
    "name": "small",
    "input": [4, 8, 8, 2],
    "layers": [
        {
            "kind": "Conv3D",
            "name": "conv",
            "inputs": [0],
            "settings": SLIDING | {"groups": 1, "filters": 6},
            "arrays": {"kernel": "conv/kernel", "bias": "conv/bias"},
        },
        {
            "kind": "BatchNormalization",
            "name": "norm",
            "inputs": [1],
            "settings": {"axis": -1, "epsilon": 0.001, "scale": False, "center": True},
            "arrays": {part: f"norm/{part}" for part in ("beta", "moving_mean", "moving_variance")},
        },
        {
            "kind": "GroupNormalization",
            "name": "groups",
            "inputs": [2],
            "settings": {"groups": 3, "axis": -1, "epsilon": 0.001, "scale": True, "center": False},
            "arrays": {"gamma": "groups/gamma"},
        },
        {
            "kind": "Conv3DTranspose",
            "name": "up",
            "inputs": [3],
            "settings": SLIDING | {"output_padding": None, "filters": 1, "strides": [1, 2, 2]},
            "arrays": {"kernel": "up/kernel", "bias": "up/bias"},
        },
        {
            "kind": "MaxPooling3D",
            "name": "pool",
            "inputs": [4],
            "settings": {
                "pool_size": [2, 2, 2],
                "strides": [2, 2, 2],
                "padding": "valid",
                "data_format": "channels_last",
            },
        },
        {
            "kind": "UpSampling3D",
            "name": "repeat",
            "inputs": [5],
            "settings": {"size": [2, 1, 1], "data_format": "channels_last"},
        },
        {"kind": "Reshape", "name": "flat", "inputs": [6], "settings": {"target_shape": [4, -1, 8, 1]}},
    ],
    "outputs": [7],
}
SHAPES = {
    "conv/kernel": (1, 3, 3, 2, 6),
    "conv/bias": (6,),
    "norm/beta": (6,),
    "norm/moving_mean": (6,),
    "norm/moving_variance": (6,),
    "groups/gamma": (6,),
    "up/kernel": (1, 3, 3, 1, 6),
    "up/bias": (1,),
}
ARRAYS = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}


def _said(place, value):
    """The description with another value at a place, keys joined by dots."""
    said = copy.deepcopy(SAID)
    *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    holder = said
    for key in path:
        holder = holder[key]
    holder[last] = value
    return said


def test_a_sound_description_is_read():
    network = from_json(SAID, ARRAYS, WINDOW)
    assert network.output_shapes == [(None, 4, 8, 8, 1)]
    assert network.layers[0].kernel is ARRAYS["conv/kernel"]


@pytest.mark.parametrize("name", SHAPES)
def test_arrays_are_those_of_the_file_and_of_the_shapes_that_layers_need(name):
    for shape in ((*SHAPES[name][::-1], 1), (*SHAPES[name][:-1], 7)):
        with pytest.raises(WeightsError, match="has arrays of the shapes"):
            from_json(SAID, ARRAYS | {name: np.zeros(shape, np.float32)}, WINDOW)
    with pytest.raises(WeightsError, match="cannot be used"):
        from_json(SAID, {other: ARRAYS[other] for other in SHAPES if other != name}, WINDOW)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("layers.0.arrays", {"kernel": "conv/kernel"}),
        ("layers.1.arrays.gamma", "norm/beta"),
        *((f"layers.0.settings.{name}", value) for name in ("strides", "kernel_size") for value in ([1, 0, 1], [1, 1])),
        *((f"layers.0.settings.{name}", value) for name in ("groups", "filters") for value in (0, -6, True, 1.0)),
        ("layers.0.settings.groups", 4),
        ("layers.0.settings.dilation_rate", [1, -1, 1]),
        ("layers.0.settings.data_format", "channels_first"),
        ("layers.2.settings.groups", 4),
        ("layers.3.settings.strides", [1, 2.0, 2]),
        ("layers.4.settings.pool_size", 2),
        ("layers.5.settings.size", [1, 1, 0]),
        ("layers.6.settings.target_shape", [4, -1, 8, 5]),
        ("layers.6.settings.target_shape", [4, 0, -1, 1]),
        ("layers.6.settings.target_shape", [4, 8, 8, 2]),
        ("layers.6.inputs", [6.0]),
        ("outputs", [1.0]),
        ("outputs", []),
        ("layers.5.settings.size", [2**10, 2**10, 2**10]),
    ],
)
def test_what_no_network_has_is_refused(place, value):
    with pytest.raises(WeightsError, match="cannot be used"):
        from_json(_said(place, value), ARRAYS, WINDOW)


def _alone(kind, settings, arrays, inputs=(0,)):
    layer = {"kind": kind, "name": "x", "inputs": list(inputs), "settings": settings}
    named = {part: f"x/{part}" for part in arrays}
    said = {"version": 1, "name": "small", "input": WINDOW, "layers": [layer | {"arrays": named}], "outputs": [1]}
    return said, {f"x/{part}": np.ones(shape, np.float32) for part, shape in arrays.items()}


CENTERED = {"axis": [-1], "epsilon": 0.001, "scale": False, "center": False}
LAYERED = CENTERED | {"rms_scaling": False}
GIVEN = {"axis": [-1], "invert": False, "input_mean": [0.5, 0.5], "input_variance": [1.0, 1.0]}
DENSE = {"units": 3, "use_bias": False, "activation": "relu"}
STATISTICS = dict.fromkeys(("moving_mean", "moving_variance"), (2,))


@pytest.mark.parametrize(
    "layer",
    [
        ("LayerScale", {}, {"gamma": (2,)}),
        ("CustomScaleLayer", {"scale": 0.5}, {}, (0, 0)),
        ("Dense", DENSE, {"kernel": (2, 3)}),
        ("LayerNormalization", LAYERED, {}),
        ("Normalization", GIVEN, {}),
        ("Normalization", GIVEN | {"axis": [], "input_mean": None}, {"mean": (), "variance": (), "count": ()}),
        ("PReLU", {"shared_axes": [1, 2, 3]}, {"alpha": (1, 1, 1, 2)}),
        ("Rescaling", {"scale": 0.5, "offset": [1, 2]}, {}),
    ],
)
def test_a_description_of_layers_per_channel_is_read(layer):
    assert from_json(*_alone(*layer), WINDOW)


def test_rows_and_columns_may_differ_between_scans():
    strided = SLIDING | {"strides": [1, 2, 2], "groups": 1, "filters": 3, "use_bias": False}
    said, arrays = _alone("Conv3D", strided, {"kernel": (1, 3, 3, 2, 3)})
    assert from_json(said, arrays, (4, None, None, 2)).output_shapes == [(None, 4, None, None, 3)]


@pytest.mark.parametrize(
    "layer",
    [
        ("LayerScale", {}, {}),
        ("LayerScale", {}, {"gamma": (2,), "more": (2,)}),
        ("CustomScaleLayer", {"scale": 0.5}, {}, (0,)),
        ("CustomScaleLayer", {"scale": 0.5}, {}, (0, 0, 0)),
        ("CustomScaleLayer", {"scale": "large"}, {}, (0, 0)),
        ("Subtract", {}, {}, (0, 0, 0)),
        ("ops.Subtract", {}, {}, (0,)),
        ("Dense", DENSE | {"activation": ["relu"]}, {"kernel": (2, 3)}),
        *(("BatchNormalization", CENTERED | {"axis": -1, "epsilon": e}, STATISTICS) for e in ("small", None)),
        ("GroupNormalization", CENTERED | {"axis": -1, "groups": 2, "epsilon": "small"}, {}),
        *(("LayerNormalization", LAYERED | {part: value}, {}) for part, value in (("axis", -1), ("epsilon", "small"))),
        *(("Normalization", GIVEN | {"input_mean": value}, {}) for value in ("large", [1, 2, 3], [[1], [2]], [[1], 2])),
        ("Normalization", GIVEN | {"axis": 4}, {}),
        ("PReLU", {"shared_axes": [1]}, {"alpha": (1, 8, 8, 2)}),
        *(("Rescaling", {"scale": value, "offset": 0}, {}) for value in ("large", [1, 2, 3], [[1, 2], [3]], [])),
    ],
)
def test_settings_that_cannot_be_written_are_refused_when_the_description_is_read(layer):
    with pytest.raises(WeightsError, match="cannot be used"):
        from_json(*_alone(*layer), WINDOW)


def test_an_array_that_no_layer_uses_and_too_many_values_are_refused():
    with pytest.raises(WeightsError, match=r"differ in the arrays \['more/kernel'\]"):
        from_json(SAID, ARRAYS | {"more/kernel": np.zeros(3)}, WINDOW)
    large = {"kind": "UpSampling3D", "name": "large", "inputs": [7]}
    large["settings"] = {"size": [2**10, 2**7, 2**5], "data_format": "channels_last"}
    layers = [*SAID["layers"], *[large | {"name": f"large{number}"} for number in range(17)]]
    with pytest.raises(WeightsError, match="its layers would give"):
        from_json(SAID | {"layers": layers}, ARRAYS, WINDOW)


@pytest.mark.parametrize("text", [b"[" * 100_000, b" " * 2**22 + b"1"], ids=["deep", "large"])
def test_a_description_made_to_do_harm_is_refused_when_it_is_read(tmp_path, text):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file["planar3d_description"] = np.frombuffer(text, np.uint8)
        file["layers/conv/vars/0"] = np.zeros(3, np.float32)
        file["layers/conv/vars"].attrs["name"] = "conv"
    for read in (read_description, rehearse):
        with pytest.raises(WeightsError, match="the description of its network cannot be read"):
            read(path)


def test_a_card_gets_the_digest_of_the_description_beside_it(tmp_path):
    path = tmp_path / "a.weights.h5"
    write_metadata(path, {"planar3d_card": {"name": "a"}}, SAID)
    with h5py.File(path) as file:
        digest = json.loads(file.attrs["planar3d_card"])["description_sha256"]
    assert read_description(path, digest) == read_description(path) == json.loads(json.dumps(SAID))
    assert read_description(path, "0" * 64) is None
