"""A recipe: all settings of an experiment in one place, to and from JSON."""

from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any

from planar3d.errors import RecipeError
from planar3d.networks.settings import NETWORKS, Network, PlanarResUNetSettings
from planar3d.recipes.format_1 import upgraded
from planar3d.scans.labels import SCALES, Targets
from planar3d.scans.preparation import PREPARATIONS, Preparation, SagittalCube
from planar3d.scans.targets import TARGETS, Binary
from planar3d.scans.tiles import TILES, DepthWindows, Lengths, Tiles
from planar3d.sections import Content, Section, UnknownVariantError, choose, meant, places, section, variants_with
from planar3d.training.samples import shape_seen
from planar3d.training.settings import Training

WindowShape = tuple[int | None, int | None, int | None, int]

FORMAT = 2  # of written recipes

# Current names of fields of format 1.
_FORMER = {"grid": "preparation=sagittal-cube or axial-slices", "sampling": "samples=windows or crops"}
_OF_A_PROGRAM = (
    "If it is from a program of your own, import that program first, and use Python in place of the command; if from a "
    "later version, update with pip install -U planar3d."
)


@dataclass(frozen=True)
class Recipe(Section):
    """All settings that change a result, from preparation to threshold, in sections.

    A field that only one section has can be read and changed by its name alone: `recipe.epochs` is
    `recipe.training.epochs`.

    Raises:
        RecipeError: the value of a field is not one of its choices, or out of range.
    """

    name: str  # type: ignore[misc]  # name of the recipe
    preparation: Preparation = section(SagittalCube(), PREPARATIONS)  # grid and grey levels of the network's input
    tiles: Tiles = section(DepthWindows(), TILES)  # parts of a scan for prediction
    network: Network = section(PlanarResUNetSettings(), NETWORKS)  # the network
    targets: Targets = section(Binary(), TARGETS)  # meaning of the output
    training: Training = section(Training())  # training

    def check(self) -> None:
        """Refuse incompatible sections."""
        self.training.samples.check_with(self.preparation, self.targets)
        if self.targets.activation not in SCALES[self.tiles.averaged]:
            raise RecipeError(
                f"averaged={self.tiles.averaged!r} is for targets='classes', but this "
                f"recipe has targets={self.targets.name!r}; set averaged='probabilities'."
            )
        if self.tiles.of_head and not self.preparation.tells_air:
            raise RecipeError(
                f"planes={self.tiles.planes!r} needs grey levels that separate the head from air, but this recipe has "
                f"preparation={self.preparation.name!r}; set grey_levels='median' where it exists, or planes='whole'."
            )

    def __getattr__(self, name: str) -> Any:
        path = () if name.startswith("_") else self._place(name, self.to_json(), missing=True)
        if not path:
            raise AttributeError(f"A recipe has no field {name!r}.")
        return reduce(getattr, path, self)

    @property
    def slices(self) -> int:
        """Number of slices of a prepared scan; if scans differ, for a head of 150 mm."""
        return self.preparation.slices(self.tiles.depth)

    @property
    def window(self) -> WindowShape:
        """(depth, rows, cols, channels) of the network's input in prediction; None where scans differ."""
        return self._shape(shape_seen(self.tiles, self.preparation))

    @property
    def sample(self) -> WindowShape:
        """(depth, rows, cols, channels) of the network's input in training; None where scans differ."""
        return self._shape(self.training.samples.shape(self.tiles, self.preparation))

    @property
    def shows_brains(self) -> bool:
        """Whether the network is made for extracted brains, alone or besides whole heads."""
        return self.training.samples.shows_brains or self.preparation.suits_brains

    def _shape(self, lengths: Lengths) -> WindowShape:
        depth, rows, cols = (length or None for length in lengths)
        return depth, rows, cols, self.preparation.channels

    def changed(self, /, **fields: Any) -> "Recipe":
        """Return the recipe with some fields changed; unknown fields raise a `RecipeError` that lists all fields.

        A field is named alone or with its sections, `training.samples.crop`. A section takes an object or the name of a
        variant; fields that both variants have keep their values.
        """
        content = self.to_json()
        # Variants first, as they define the fields.
        for sections in (True, False):
            for name, value in fields.items():
                path = self._place(name, content, missing=sections)
                if path and isinstance(reduce(getitem, path, content), dict) == sections:
                    choose(Recipe, content, path, value)
        return _made(content, f"Recipe {self.name!r}")

    def with_settings(self, settings: list[str]) -> "Recipe":
        """Return the recipe with texts `field=value` applied, as given to `--set`."""
        fields = {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals:
                raise RecipeError(f"--set {setting}: 'field=value' is needed, e.g. --set epochs=8.")
            fields[name.strip()] = text.strip()
        return self.changed(**fields)

    def to_json(self) -> Content:
        """The recipe as plain JSON values, with the format number."""
        return {"format": FORMAT, **super().to_json()}

    @classmethod
    def from_json(cls, content: Any, source: str = "recipe") -> "Recipe":
        """Read a recipe from `to_json` of this or an earlier version; `source` names it in errors.

        Missing fields have the defaults of the recipe's format, not the values of the current recipe of that name.
        """
        if not isinstance(content, dict) or "name" not in content:
            raise RecipeError(f"{source} is not a recipe: a JSON object with at least 'name' is needed.")
        number = content.get("format", 1)
        if number not in (1, FORMAT) or type(number) is not int:
            raise RecipeError(
                f"{source}: the recipe has format {number!r}, but this version reads 1 and {FORMAT}. Update with "
                "pip install -U planar3d."
            )
        try:
            return _made(content, f"{source}: Recipe {content['name']!r}", flat=number == 1)
        except UnknownVariantError as error:
            raise UnknownVariantError(f"{error} {_OF_A_PROGRAM}") from None

    def leaves(self) -> Content:
        """Every field by its dotted path; for a section with variants, the variant's name."""
        content = self.to_json()
        found = {".".join(path): reduce(getitem, path, content) for path in places(Recipe, content)}
        named = {path: value.get("name") if isinstance(value, dict) else value for path, value in found.items()}
        return {path: value for path, value in named.items() if value is not None}

    def _place(self, name: str, content: Content, missing: bool = False) -> tuple[str, ...]:
        """The path of a field, named alone or with its sections; empty if it is missing and `missing` allows that."""
        paths = list(places(Recipe, content))
        found = [path for path in paths if ".".join(path) == name] or [path for path in paths if path[-1] == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise RecipeError(
                f"{name} is a field of {' and of '.join('.'.join(path[:-1]) for path in found)}; name one of them."
            )
        if missing:
            return ()
        if name in _FORMER:
            raise RecipeError(f"The field {name!r} was replaced; set {_FORMER[name]}.")
        others = [f"{field}={variant}" for field, variant in variants_with(Recipe, content, name)]
        hint = f" ({' or '.join(others)} has it)" if others else ""
        fields = [".".join(path) for path in paths]
        raise RecipeError(
            f"A recipe has no field {name!r}{hint}.{meant(name, fields)} {self.name!r} has: {', '.join(fields)}."
        )


def _made(content: Content, source: str, flat: bool = False) -> Recipe:
    try:
        sections = upgraded(content) if flat else content
        return Recipe.made({name: value for name, value in sections.items() if name != "format"}, where="a recipe")
    except RecipeError as error:
        error.args = (f"{source}: {error}",)  # which may be an UnknownFieldError, with its fields
        raise


def check_recipe(recipe: Any) -> None:
    """Raise a `RecipeError` unless this is a recipe."""
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"recipe={recipe!r}: a Recipe is needed, such as planar3d.PAPER.")
