"""Model cards: a network's training data, scores and limits.

A card is JSON in the weights file; training fills in what it knows, and publishing requires the rest. What is filled in
has no time or path, so that a resumed training writes the same file. In Markdown,
texts become paragraphs, lists of texts bullets, mappings tables of two columns, and lists of mappings tables with one
column per key.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planar3d.environment import versions
from planar3d.errors import WeightsError
from planar3d.files import write_text
from planar3d.networks.descriptions import describe_for
from planar3d.networks.weights_file import Model
from planar3d.recipes import Recipe
from planar3d.scans.folds import Fold
from planar3d.transfer.array_files import read_directly
from planar3d.transfer.digests import digest_of_all
from planar3d.transfer.metadata import CARD, NETWORK, RECIPE, plain_text, write_metadata

if TYPE_CHECKING:
    import keras

# Fields that a person must write for a published model: their titles and meaning.
WRITTEN = {
    "name": ("Name", "name of the model and of its file"),
    "data": ("Training data", "the training data and their origin"),
    "licence": ("Licence", "licence of the weights"),
    "attribution": ("Attribution", "credit for the data and the initial weights"),
    "training": ("Training", "how it was trained"),
    "scores": ("Cross-validated scores", "cross-validated scores with their conditions"),
    "input": ("Expected input", "the scans it is meant for"),
    "limits": ("Limits", "where it fails, and what it must not be used for"),
}
# Fields of a card in order of display; further fields written by a person come between the two groups.
_TITLES = {field: title for field, (title, _) in WRITTEN.items() if field != "name"}
_MEASURED_TITLES = {
    "threshold": "Threshold",
    "network": "Network",
    "versions": "Written with",
    "storage": "Storage",
    "weights_sha256": "SHA-256 of the arrays",
    "description_sha256": "SHA-256 of the network's description",
}
_SUMMARIZED = ("data", "licence", "threshold", "scores")


def write_about(
    file: Path, network: "keras.Model", recipe: Recipe, said: Mapping[str, Any], storage: str | None = None
) -> None:
    """Write recipe, network, card and description into a weights file.

    Args:
        said: a person's statements, which take precedence over the recipe, but not over measurements.
        storage: how a published file stores the weights.
    """
    import keras

    from planar3d.networks.registry import describe_network, weight_source

    arrays = read_directly(file)
    seen, images, form = recipe.preparation.describe(), recipe.preparation.images, "NIfTI, any orientation"
    scans = f"Images of a case: {', '.join(images)}; {form}, all on one grid."
    if images == ("flair",):
        brains = recipe.shows_brains
        shown = "whole head or extracted brain" if brains else "whole head, without brain extraction"
        scans = f"One raw FLAIR scan of a {shown}, {form}; no registration is needed."
    told = {
        "name": recipe.name,
        "data": "not stated",
        "licence": "not stated",
        "attribution": [f"Encoder: {weight_source(recipe).credit(recipe.network.encoder_weights)}."],
        "input": [scans, f"Preparation: {seen['grid']}; {seen['grey_levels']}."],
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
    if storage:
        measured["storage"] = storage
    card = {**told, **said, **measured}
    metadata = {RECIPE: recipe.to_json(), NETWORK: describe_network(recipe), CARD: card}
    write_metadata(file, metadata, describe_for(arrays, network))


def training_card(recipe: Recipe, data: Mapping[str, Any], fold: Fold, number: int, folds: int) -> dict[str, Any]:
    """The card's fields from a fold of a cross-validation; `data` is that of the `folds.json` of a run folder."""
    return {
        "name": f"{recipe.name}, fold {number} of {folds}",
        "data": {
            # Only the folder's name: its path would reveal details of the machine.
            "data set": "a phantom (not patients)" if data["phantom"] else Path(data["folder"]).name,
            "layout": data["layout"],
            **fold.trained(recipe.training.samples.holds_out),
        },
    }


def check_card(card: Any) -> None:
    """Raise a `WeightsError` if a card lacks a required field, or has a measured one."""
    if not isinstance(card, Mapping):
        raise WeightsError(f"A model card is a JSON object with the fields {', '.join(WRITTEN)}.")
    missing = [f"{field} ({meaning})" for field, (_, meaning) in WRITTEN.items() if not card.get(field)]
    if missing:
        raise WeightsError(f"The model card lacks {', '.join(missing)}. Add what is missing.")
    measured = [field for field in _MEASURED_TITLES if field in card]
    if measured:
        raise WeightsError(
            f"The model card must not have {', '.join(measured)}: measured fields are filled in automatically."
        )


def summarize_card(card: Mapping[str, Any] | None) -> list[str]:
    """A card's main lines as plain text: name, data, licence, threshold, scores; none without a card.

    Control characters, with which an untrusted file could control a terminal, are removed.
    """
    if card is None:
        return []
    lines = [str(card.get("name", "unnamed model"))]
    for field in _SUMMARIZED:
        if field in card:
            first, *others = _plain(card[field])
            title = (_TITLES | _MEASURED_TITLES)[field]
            lines += [f"  {title}: {first}".rstrip(), *(f"    {line}" for line in others)]
    return [plain_text(line.replace("\n", " ")) for line in lines]


def write_card(path: str | Path) -> Path:
    """Write the model card of a weights file as Markdown beside it, and return its path; see `card_markdown`."""
    path = Path(path)
    written = path.with_name(f"{path.name.removesuffix('.weights.h5')}.md")
    write_text(written, card_markdown(path))
    return written


def card_markdown(model: str | Path) -> str:
    """The model card of a weights file or published model, with its recipe, as Markdown.

    Control characters and HTML, with which an untrusted file could do harm, are removed or escaped.
    """
    opened = Model.open(model)
    path, card = opened.path, opened.card
    if card is None or RECIPE not in opened.metadata:
        raise WeightsError(f"{path} has no model card or no recipe; planar3d train and publish_weights write both.")
    name = str(card.get("name", path.name))
    # Only a published model is found by its name.
    called = name if path.name == f"{name}.weights.h5" else path.name
    images = {name: f"{name}.nii.gz" for name in opened.recipe.preparation.images}
    files, given = ["scan.nii.gz"], '"scan.nii.gz"'
    if len(images) > 1:
        files = [word for name, file in images.items() for word in ("--image", f"{name}={file}")]
        given = json.dumps(images, ensure_ascii=False)
    others = [field for field in card if field not in ("name", *_TITLES, *_MEASURED_TITLES)]
    more = {field: field.replace("_", " ").capitalize() for field in others}
    titles = _TITLES | more | _MEASURED_TITLES
    sections = [f"## {title}\n\n{_markdown(card[field])}" for field, title in titles.items() if field in card]
    content = [
        f"# {name}",
        f"`{path.name}`, {path.stat().st_size:,} bytes, SHA-256 `{opened.sha256}`.",
        f"```\n{shlex.join(['planar3d', 'predict', *files, '--model', called, '--out', 'masks'])}\n```",
        f'```python\nimport planar3d as p3\n\nmask = p3.segment({given}, "{called}")\n```',
        *sections,
        f"## Recipe\n\n```json\n{json.dumps(opened.recipe.to_json(), indent=2)}\n```",
        "This page shows the card in the weights file and, for a published model, later measurements; "
        f"`planar3d info --model {called} --card` prints it.",
    ]
    lines = "\n\n".join(content).replace("<", "&lt;").split("\n")
    return "\n".join(map(plain_text, lines)) + "\n"


def _plain(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return ["", *(f"{key}: {_cell(item)}" for key, item in value.items())]
    if _is_list(value):
        return ["", *map(_cell, value)]
    return [_cell(value)]


def _markdown(value: Any) -> str:
    if isinstance(value, Mapping):
        return _table(["", ""], [[key, item] for key, item in value.items()])
    if _is_list(value) and value and all(isinstance(item, Mapping) for item in value):
        columns = list(dict.fromkeys(key for row in value for key in row))
        return _table(columns, [[row.get(column, "") for column in columns] for row in value])
    if _is_list(value):
        return "\n".join(f"- {_cell(item)}" for item in value)
    return _cell(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in cells)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_cell(item)}" for key, item in value.items())
    return ", ".join(map(_cell, value)) if _is_list(value) else str(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
