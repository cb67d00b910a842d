"""Publication of a trained network as one small file: float16, with recipe and model card."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from planar3d.disk import require_room
from planar3d.errors import WeightsError
from planar3d.files import temporary_folder, written_beside
from planar3d.locks import alone_with
from planar3d.networks.model_card import check_card, write_about
from planar3d.networks.registry import recipe_network
from planar3d.networks.weights_file import load_network, read_recipe
from planar3d.recipes import Recipe
from planar3d.transfer.guards import items_in

LARGEST_FILE = 50_000_000
# Compressed arrays take longer to load, so they must save at least a tenth.
_PAYS = 0.9
_COMPRESSION = {"shuffle": True, "compression": "gzip", "compression_opts": 6}


def publish_weights(
    network: keras.Model | str | Path, path: str | Path, recipe: Recipe | None, card: Mapping[str, Any]
) -> Path:
    """Write a network's weights in float16, with recipe, model card and description, as a Keras `.weights.h5`.

    Both `keras.Model.load_weights` and this package load it as float32, each value rounded to float16.

    Args:
        network: the network, or its weights file.
        path: `<name>.weights.h5`, with the card's name.
        recipe: the recipe of the training; default: the one in the weights file.
        card: the fields written by a person (`model_card.WRITTEN`); the rest is filled in.

    Raises:
        WeightsError: float16 cannot represent a value, the file exceeds 50 MB, the card lacks a field, or there is no
            recipe.
    """
    path = Path(path)
    check_card(card)
    if path.name != f"{card['name']}.weights.h5":
        raise WeightsError(f"{path}: the model {card['name']} is published as {card['name']}.weights.h5.")
    if not isinstance(network, keras.Model):
        recipe = recipe or read_recipe(network)
    if recipe is None:
        raise WeightsError("The weights file does not contain its recipe; give the recipe as well.")
    if recipe.network.encoder_weights not in ("imagenet", "none"):
        raise WeightsError(
            f"The recipe takes its encoder from {recipe.network.encoder_weights}, which others do not have; set "
            "encoder_weights to 'imagenet' or 'none' for publication, and name the source of the encoder in the card."
        )
    published = _built_anew(network, recipe)
    _refuse_what_is_lost(published)
    with alone_with(path), written_beside(path) as written:
        with temporary_folder(path.parent, f"-{path.name}") as folder:
            single = folder / path.name
            require_room(path, sum(3 * array.nbytes // 2 for array in published.get_weights()))  # of both files
            published.save_weights(single)
            with h5py.File(single) as source, h5py.File(written, "w", locking=False) as target:
                _copy_halved(source, target)
        write_about(written, published, recipe, card, storage="float16, loaded as float32")
        size = written.stat().st_size
        if size > LARGEST_FILE:
            raise WeightsError(f"{path} would have {size:,} bytes; the limit is {LARGEST_FILE:,}. Use fewer filters.")
    return path


def _built_anew(network: keras.Model | str | Path, recipe: Recipe) -> keras.Model:
    """The recipe's network with these weights, as built on loading, without optimizer."""
    if not isinstance(network, keras.Model):
        return load_network(network, recipe)[0]
    built = recipe_network(recipe)
    try:
        built.set_weights(network.get_weights())
    except ValueError as error:
        raise WeightsError(f"{network.name} is not the network of the recipe {recipe.name} ({error}).") from None
    return built


def _refuse_what_is_lost(network: keras.Model) -> None:
    for variable in network.weights:
        values = keras.ops.convert_to_numpy(variable)
        with np.errstate(over="ignore"):
            if not np.isfinite(values.astype(np.float16)).all():
                raise WeightsError(
                    f"{variable.path} has the value {values.flat[np.argmax(np.abs(values))]:g}, which float16 cannot "
                    f"represent (its limit is {np.finfo(np.float16).max}); nothing was written."
                )


def _copy_halved(source: h5py.File, target: h5py.File) -> None:
    for name, item in items_in(source):
        if isinstance(item, h5py.Dataset):
            values = item[()].astype(np.float16)
            shuffled = np.ascontiguousarray(values.reshape(-1, 1).view(np.uint8).T).tobytes()
            pays = len(zlib.compress(shuffled)) <= _PAYS * len(shuffled)
            options = {"chunks": values.shape, **_COMPRESSION} if pays else {}
            made = target.create_dataset(name, data=values, **options)
        else:
            made = target.require_group(name)
        made.attrs.update(item.attrs)
    target.attrs.update(source.attrs)
