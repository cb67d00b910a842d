"""Publish a trained network: weights/<name>.weights.h5 in float16, its model card, and its digest in the table."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from planar3d.cli import main
from planar3d.errors import WeightsError
from planar3d.files import parse_json, write_json
from planar3d.transfer.digests import file_sha256
from planar3d.transfer.published_models import TABLE, published_models


def publish(
    weights: Annotated[Path, typer.Option("--weights", help="Weights file of a trained network, with its recipe.")],
    card: Annotated[Path, typer.Option("--card", help="JSON file with the written fields of the card.")],
    out: Annotated[Path, typer.Option("--out", help="weights/<name>.weights.h5, with the card's name.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="field=value changes the published recipe; repeatable.")
    ] = None,
    table: Annotated[Path, typer.Option("--table", help="Table of published models.")] = TABLE,
) -> None:
    """Write the published file and its model card, and enter its digest in the table of published models."""
    from planar3d.networks.model_card import write_card
    from planar3d.networks.publishing import publish_weights
    from planar3d.networks.weights_file import Model, read_recipe

    def made_of(file: Path) -> tuple[Any, Any]:
        opened = Model.open(file)
        return opened.own_recipe, (opened.card or {}).get("weights_sha256")

    try:
        said = parse_json(card)
    except ValueError as error:
        raise WeightsError(f"{card} is not JSON ({error}).") from None
    recipe = read_recipe(weights)
    lines = json.loads(table.read_text(encoding="utf-8")) if table.is_file() else {}
    former = file_sha256(out) if out.is_file() else None
    line: dict[str, Any] = next((line for line in lines.values() if former and line.get("sha256") == former), {})
    before = made_of(out) if line else None
    published = publish_weights(weights, out, recipe and recipe.with_settings(settings or []), said)
    size, sha256 = published.stat().st_size, file_sha256(published)
    # What was measured since holds for the same weights and recipe, but a release only for the same file.
    kept = {
        name: line[name] for name in line if before == made_of(published) and (name != "release" or sha256 == former)
    }
    lines[said["name"]] = {**kept, "file": published.name, "sha256": sha256, "bytes": size, "licence": said["licence"]}
    write_json(table, lines)
    published_models.cache_clear()  # so that the card has what was kept
    typer.echo(f"{published}: {size:,} bytes, SHA-256 {sha256}")
    typer.echo(f"{write_card(published)}")


if __name__ == "__main__":
    main(publish)
