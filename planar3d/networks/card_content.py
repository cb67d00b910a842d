"""The parts of a model card that follow from the trained network, without a person.

They contain no time or path, so that a resumed training writes the same file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from planar3d.environment import versions
from planar3d.networks.registry import weight_source
from planar3d.recipes import Recipe
from planar3d.scans.folds import Fold
from planar3d.transfer.digests import digest_of_all


def filled_card(
    network: keras.Model, recipe: Recipe, arrays: Mapping[str, np.ndarray], said: Mapping[str, Any]
) -> dict[str, Any]:
    """A model card from a person's statements, the recipe, and measurements.

    Args:
        arrays: of its weights file, by `layer/weight`, as read from there.
        said: takes precedence over the recipe, but not over measurements.
    """
    seen, brains = recipe.preparation.describe(), recipe.training.samples.shows_brains
    images, form = recipe.preparation.images, "NIfTI, any orientation"
    shown = "whole head or extracted brain" if brains else "whole head, without brain extraction"
    flair = f"One raw FLAIR scan of a {shown}, {form}; no registration is needed."
    others = f"The images {', '.join(images)} of a case, {form}; all share one grid."
    if len(images) == 1:
        others = f"The image {images[0]} of a case, {form}."
    told = {
        "name": recipe.name,
        "data": "not stated",
        "licence": "not stated",
        "attribution": [f"Encoder: {weight_source(recipe).credit(recipe.network.encoder_weights)}."],
        "input": [
            flair if images == ("flair",) else others,
            f"It is prepared as {seen['grid']}; {seen['grey_levels']}.",
        ],
        "limits": ["Research software, not a medical device.", "Its scores on scans of other sites are unknown."],
    }
    measured = {
        "network": {
            "name": network.name,
            "parameters": network.count_params(),
            "windows": "×".join(str(n) for n in network.input_shape[1:]),
        },
        "threshold": recipe.targets.decision,
        "versions": {**versions(), "backend": keras.backend.backend()},
        "weights_sha256": digest_of_all(arrays),
    }
    return {**told, **said, **measured}


def training_card(recipe: Recipe, data: Mapping[str, Any], fold: Fold, number: int, folds: int) -> dict[str, Any]:
    """The card's fields from a fold of a cross-validation; `data` is that of the `folds.json` of a run folder."""
    return {
        "name": f"{recipe.name}, fold {number} of {folds}",
        "data": {
            # Only the folder's name: its path would reveal details of the machine.
            "data set": "a phantom (not patients)" if data["phantom"] else Path(data["folder"]).name,
            "layout": data["layout"],
            **fold.trained(recipe.training.samples.validates),
        },
    }
