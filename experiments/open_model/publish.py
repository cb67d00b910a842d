"""Publish a trained network: weights/<name>.weights.h5 in float16, its model card, and its digest in the table."""

import json
from pathlib import Path
from typing import Annotated

import typer

from planar3d.cli import main
from planar3d.errors import WeightsError
from planar3d.transfer.published_models import TABLE


def publish(
    weights: Annotated[Path, typer.Option("--weights", help="Weights file of a trained network, with its recipe.")],
    card: Annotated[Path, typer.Option("--card", help="JSON of what a person says of the model.")],
    out: Annotated[Path, typer.Option("--out", help="weights/<name>.weights.h5, of the card's name.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="field=value, changes the published recipe; repeatable.")
    ] = None,
    table: Annotated[Path, typer.Option("--table", help="Table of published models.")] = TABLE,
) -> None:
    """Write the published file and its model card, and enter its digest in the table of published models."""
    from planar3d.networks.model_card import write_card
    from planar3d.networks.publishing import enter_in_table, publish_weights
    from planar3d.networks.weights_file import read_recipe

    try:
        said = json.loads(card.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{card} is not JSON ({error}).") from None
    recipe = read_recipe(weights)
    published = publish_weights(weights, out, recipe and recipe.with_settings(settings or []), said)
    line = enter_in_table(published, table)
    typer.echo(f"{published}: {line['bytes']:,} bytes, SHA-256 {line['sha256']}")
    typer.echo(f"{write_card(published)}")


if __name__ == "__main__":
    main(publish)
