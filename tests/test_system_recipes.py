"""The recipes of Messaoudi 2020 and 2023 have the papers' values, and differ from the released code where it does."""

from pathlib import Path

import numpy as np
import pytest

from planar3d.errors import WeightsError
from planar3d.networks.registry import describe_network, refuse_other_sizes
from planar3d.networks.settings import DXNetSettings
from planar3d.recipes import RECIPES, Recipe

_DS = {
    **{"images": ("t1", "t1ce", "t2", "flair"), "regions": ("WT=1+2+4", "TC=1+4", "ET=4")},
    **{"optimizer.name": "nadam", "beta_1": 0.95, "beta_2": 0.99, "lookahead_steps": 6, "lookahead_share": 0.5},
    **{"learning_rate": 1e-3, "schedule.name": "cosine", "constant_epochs": 40, "floor": 1e-5, "epochs": 90},
    **{"batch_size": 1, "window": (128, 128, 128, 4), "dice_of": "all", "cross_entropy": "binary", "frozen": ()},
    **{"encoder_padding": "same", "encoder_epsilon": 1e-3},
}
_OMNIA = {
    **{"optimizer.name": "nadam", "lookahead_steps": 0, "schedule.name": "exponential", "factor": 0.95, "floor": 1e-5},
    **{"batch_size": 8, "encoder_padding": "same", "encoder_epsilon": 1e-3, "stem": "fitted", "frozen": ()},
}
# What the papers say, and of padding and epsilon what the encoders' weights were trained with.
VALUES = {
    "messaoudi2020": {
        **{"images": ("flair",), "crop": (108, 192, 160), "factors": (3, 3, 4), "window": (108, 192, 160, 1)},
        **{"regions": ("WT=1+2+4", "TC=1+4", "ET=4"), "denominator": "squares", "cross_entropy": "binary"},
        **{"optimizer.name": "adam", "learning_rate": 1e-4, "batch_size": 1, "frozen": ()},
        **{"schedule.name": "plateau", "factor": 0.1, "plateau": 50},
    },
    "messaoudi2023-ds": _DS
    | {"factors": (3, 2, 2, 4), "up_kernels": (), "convolutions": 2, "full_resolution": 16, "activation_2d": "relu"},
    "messaoudi2023-dx": _DS | {"norm": "instance", "stem": "fitted"},
    "messaoudi2023-omnia-camus": _OMNIA
    | {"encoder": "b0", "learning_rate": 3e-4, "epochs": 67, "window": (1, 256, 256, 1), "augmentation": ()},
    "messaoudi2023-omnia-chaos": _OMNIA
    | {"encoder": "b4", "learning_rate": 1e-3, "epochs": 90, "window": (1, 512, 512, 1), "augmented_share": 0.5},
}
_NADAM = {"training.optimizer.epsilon": 1e-5, "training.optimizer.gradient_share": "beta_1"}
_ENCODER = {"network.encoder_padding": "symmetric", "network.encoder_epsilon": 1e-5}
# What the released code has otherwise.
RELEASED = {
    "messaoudi2020": {
        **{"preparation.images": ["flair", "t1", "t1ce", "t2"], "preparation.crop": [144, 192, 160]},
        **{"tiles.depth": 144, "tiles.stride": 144, "network.factors": [3, 4, 4]},
        **{"network.encoder_range": "grey levels", "targets": "classes", "training.loss.cross_entropy": "categorical"},
        **{"targets.classes": ["necrosis=1", "edema=2", "enhancing=4"], "training.optimizer": "nadam"},
        # The Nadam of TensorFlow 2 until 2.10, with which the code was written.
        **{"training.optimizer.momentum_decay": 0.004, "training.optimizer.gradient_share": "momentum"},
    },
    "messaoudi2023-ds": _NADAM
    | _ENCODER
    | {
        **{"network.up_kernels": [4, 3, 2, 5], "network.up_strides": [3, 2, 2, 3], "network.convolutions": 1},
        **{"network.full_resolution": 0, "network.activation_2d": "silu"},
    },
    "messaoudi2023-dx": _NADAM | _ENCODER | {"network.norm": "batch", "network.stem": "normal"},
    "messaoudi2023-omnia-camus": _NADAM | _ENCODER | {"network.stem": "normal"},
    "messaoudi2023-omnia-chaos": _NADAM | _ENCODER | {"network.stem": "normal"},
}


def _value(recipe, field):
    section, _, name = field.rpartition(".")
    return getattr(getattr(recipe.training, section), name) if section else getattr(recipe, field)


@pytest.mark.parametrize("name", VALUES)
def test_a_recipe_has_the_values_of_its_paper(name):
    assert {field: _value(RECIPES[name], field) for field in VALUES[name]} == VALUES[name]


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_code_differs_in_what_fidelity_lists(name):
    paper, released = RECIPES[name].leaves(), RECIPES[f"{name}-released"].leaves()
    changed = {field: value for field, value in released.items() if value != paper.get(field)}
    assert changed == RELEASED[name] | {"name": f"{name}-released"}


def test_a_file_of_dx_net_from_before_these_fields_keeps_the_released_values():
    content = RECIPES["messaoudi2023-dx"].to_json()
    for field in ("encoder_padding", "encoder_epsilon", "stem"):
        del content["network"][field]
    assert Recipe.from_json(content).network == DXNetSettings(encoder_padding="symmetric", encoder_epsilon=1e-5)


def test_a_file_of_dx_net_from_before_does_not_take_another_padding_from_a_recipe():
    recipe = RECIPES["messaoudi2023-dx"]
    said = describe_network(recipe)
    for field in ("encoder_padding", "encoder_epsilon"):
        del said["arguments"][field]
    arrays = {"conv/kernel": np.empty((3, 3, 3, 1, 1280))}
    with pytest.raises(WeightsError, match=r"trained with encoder_padding=symmetric.*--set encoder_padding=symmetric"):
        refuse_other_sizes(arrays, recipe, Path("dx.weights.h5"), said)
    its_own = recipe.changed(encoder_padding="symmetric", encoder_epsilon=1e-5)
    refuse_other_sizes(arrays, its_own, Path("dx.weights.h5"), said)
