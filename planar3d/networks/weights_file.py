"""A weights file that names its network and records its origin."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planar3d.disk import require_room
from planar3d.errors import WeightsError
from planar3d.files import written_beside
from planar3d.graph.description import Description
from planar3d.networks.descriptions import asks_for_one_network, keep_description, known_description
from planar3d.recipes import PAPER, Recipe
from planar3d.recipes.recipe import check_recipe
from planar3d.transfer.array_files import Arrays, read_directly
from planar3d.transfer.metadata import CARD, NETWORK, RECIPE, measures_in, plain_text, read_metadata, recipe_in
from planar3d.transfer.published_models import card_since, find_model
from planar3d.transfer.rehearsal import State, digest_of, rehearse, trust
from planar3d.transfer.transplant import transplant
from planar3d.wording import counted, listed

# Keras is imported only to build networks, not where a description suffices.
if TYPE_CHECKING:
    import keras


def save_weights(
    network: "keras.Model", path: str | Path, recipe: Recipe, card: Mapping[str, Any] | None = None
) -> Path:
    """Write a Keras `.weights.h5` with recipe, model card and the network's description, atomically.

    Args:
        path: ends with `.weights.h5`.
        card: known fields; the rest is filled in, with "not stated" for missing ones.

    Raises:
        WeightsError: another suffix, a full disk, or a network that is not the recipe's, which could not be loaded
            again.
    """
    from planar3d.networks.architecture import weight_shapes
    from planar3d.networks.model_card import write_about
    from planar3d.networks.registry import is_built_from, recipe_network

    path = Path(path)
    if not path.name.endswith(".weights.h5"):
        raise WeightsError(f"{path}: weights are saved as .weights.h5; choose such a name.")
    if not is_built_from(network, recipe) and weight_shapes(network) != weight_shapes(recipe_network(recipe)):
        raise WeightsError(
            f"{path}: {network.name} is not the network that the recipe {recipe.name} builds, so its weights "
            "could not be loaded again and were not saved. Save the whole network, "
            f"network.save({path.name.split('.')[0]!r} + '.keras'), or change the recipe to its sizes."
        )
    with written_beside(path) as temporary:
        require_room(path, sum(array.nbytes for array in network.get_weights()))
        network.save_weights(temporary, overwrite=True)
        write_about(temporary, network, recipe, card or {})
        trust(path, temporary)
    return path


@dataclass(frozen=True)
class Model:
    """A trained model: its weights file, opened once and reused.

    Attributes:
        path: the file, absolute.
        sha256: its digest.
        recipe: recipe for prediction.
        metadata: the file's, as `read_metadata` returns it.
        state: state of the file when it was opened, as `rehearse` returns it.
        assumed: whether the recipe is `PAPER` because neither the file nor the user named one.
    """

    path: Path
    sha256: str
    recipe: Recipe
    metadata: Mapping[str, Any] = field(repr=False, compare=False)
    state: State = field(repr=False, compare=False)
    assumed: bool = field(repr=False, compare=False)

    @classmethod
    def open(cls, model: "str | Path | Model", recipe: Recipe | None = None) -> "Model":
        """Find a model and read its metadata, without its arrays.

        Args:
            model: a weights file of this package or of the original release, the name of a published model, or an
                open model.
            recipe: overrides the recipe in the file; `PAPER` if there is neither.

        Raises:
            WeightsError: the file is missing or damaged, or its recipe is of another version or invalid.
        """
        if recipe is not None:
            check_recipe(recipe)
        if isinstance(model, Model):
            return replace(model, recipe=recipe, assumed=False) if recipe else model
        path = find_model(model)
        state, metadata = rehearse(path), read_metadata(path)
        known = recipe or recipe_in(metadata, path)
        found = path.absolute()  # also after a change of folder
        return cls(found, digest_of(found, state), known or PAPER, metadata, state, assumed=known is None)

    @property
    def card(self) -> dict[str, Any] | None:
        """The model card in the file, with what was measured since for a published one; None without a card."""
        card = self.metadata.get(CARD)
        return card and {**card, **card_since(self.sha256)}

    @property
    def own_recipe(self) -> Recipe | None:
        """The recipe in the file; None if it has none, or an unreadable one."""
        with suppress(WeightsError):
            return recipe_in(self.metadata, self.path)
        return None

    @property
    def cautions(self) -> list[str]:
        """Sentences about a recipe that is assumed, or that prepares scans differently from the training scans."""
        if self.assumed:
            return [
                f"{self.path.name} has no recipe; it is used with the recipe {PAPER.name}. If it was trained with "
                "another, name that with --recipe."
            ]
        used = self.recipe.leaves()
        return [
            f"{self.path.name} was trained with {field}={value}, but is used with {field}={used.get(field, 'none')}; "
            "its accuracy with that is unknown."
            for field, value in (self.own_recipe or self.recipe).leaves().items()
            if field.partition(".")[0] == "preparation" and used.get(field) != value
        ]

    def network(self, precision: str = "float32") -> "keras.Model":
        """Build the file's network and load its weights.

        Args:
            precision: computing precision, `"float32"`, `"bf16"` or `"float16"`, whatever the training precision.

        Raises:
            WeightsError: the file belongs to another network, or was changed since it was opened.
            RecipeError: the precision is unknown or not available here.
        """
        from planar3d.graph.keras_graph import without_random_weights
        from planar3d.networks.registry import recipe_network, refuse_other_sizes
        from planar3d.training.precision import built_with

        arrays = self._arrays()
        refuse_other_sizes(arrays, self.recipe, self.path, self.metadata.get(NETWORK))
        with without_random_weights():
            network = built_with(precision, lambda: recipe_network(self.recipe))
        try:
            if others := transplant(network, arrays, strict=True).unused:
                raise WeightsError(f"{network.name} has no place for {counted(others, 'weight')}: {listed(others)}.")
        except WeightsError as error:
            raise WeightsError(
                f"{self.path}: {error} A model trained by planar3d needs the recipe that it was trained with: "
                f"--recipe, or --set for {', '.join(vars(self.recipe.network))}. Weights of an encoder only "
                "initialize training (encoder_weights of a recipe); keras.saving.load_model opens other .keras files."
            ) from None
        return network

    def description(self, build: Callable[[], "keras.Model"] | None = None) -> Description:
        """Describe the file's network, with its arrays, without Keras if possible.

        Args:
            build: builds the network if Keras is needed, default `network`; the description is then kept in the
                user's cache.

        Raises what `network` raises.
        """
        own = self.own_recipe
        is_own = own is not None and asks_for_one_network(own, self.recipe)
        arrays = self._arrays() if is_own else {}
        if is_own and (found := known_description(self.path, self.sha256, self.card or {}, arrays, self.recipe)):
            return found
        from planar3d.graph.described import described

        network = (build or self.network)()
        if is_own:
            keep_description(self.sha256, arrays, network)
        return described(network)

    def _arrays(self) -> Arrays:
        if rehearse(self.path) != self.state:
            raise WeightsError(f"{self.path} was changed after it was opened. Start again.")
        return read_directly(self.path)

    def describe(self) -> dict[str, Any]:
        """A summary of the model, which is stored in the record of every mask.

        Returns:
            `name`, `sha256` of the file, `licence`, `threshold` (the recipe's, out of 256; None without one),
            `whole_head` (whether the model expects scans with skull; None if it accepts both, which is the default for
            recipes that show or suit extracted brains), `limits` (sentences), and, if the card has it, `measured`:
            the scans that the model was evaluated on, see `check_quality`.
        """
        card = self.card or {}
        limits = card.get("limits", [])
        whole_head = card.get("whole_head", None if self.recipe.shows_brains else True)
        return {
            "name": plain_text(card.get("name", self.path.name)),
            "sha256": self.sha256,
            "licence": plain_text(card.get("licence", "not stated")),
            "threshold": self.recipe.targets.to_json().get("threshold"),
            "whole_head": None if whole_head is None else bool(whole_head),
            "limits": [plain_text(limit) for limit in (limits if isinstance(limits, list) else [limits])]
            + self.cautions,
            **({"measured": measured} if (measured := measures_in(card)) else {}),
        }


def read_recipe(model: str | Path) -> Recipe | None:
    """The recipe in a weights file or published model, or None for a file of another origin.

    Raises what `Model.open` raises.
    """
    opened = Model.open(model)
    return opened.recipe if RECIPE in opened.metadata else None


def load_network(
    model: str | Path, recipe: Recipe | None = None, precision: str = "float32"
) -> tuple["keras.Model", Recipe]:
    """Build the network of a weights file or published model and load its weights; returns network and recipe.

    Arguments and errors are those of `Model.open` and `Model.network`.
    """
    opened = Model.open(model, recipe)
    return opened.network(precision), opened.recipe
