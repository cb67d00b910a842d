"""Commands that write, show and convert weights: weights, info, export."""

from pathlib import Path
from typing import Annotated

from typer import BadParameter, Option

from planar3d.commands.options import Model, Out, Settings, Size, chosen_recipe, open_model
from planar3d.commands.output import say, show

Depth = Annotated[int | None, Option("--depth", help="Slices of a window.")]


def weights(
    out: Out = Path("weights"),
    source: Annotated[str, Option(help="imagenet, or a file of 2D kernels.")] = "imagenet",
    format: Annotated[str, Option(help="keras: .weights.h5; h5: the layout of the original release.")] = "keras",
) -> None:
    """Map 2D VGG-16 weights to planar 3D kernels and write them, with a figure of a few kernels."""
    from planar3d.study.planar_weights import write_planar_weights

    for path in write_planar_weights(out, source, format, notify=say):
        say(f"wrote {path}")


def info(
    model: Annotated[str | None, Option(help="Weights file or published model to show.")] = None,
    network: Annotated[
        str | None, Option(help="Network to show, e.g. vgg16; default: planar-resunet; an unknown name lists all.")
    ] = None,
    recipe: Annotated[
        str | None, Option(help="Recipe; default: the weights file's own, or the first one with the network.")
    ] = None,
    settings: Settings = None,
    size: Size = None,
    depth: Depth = None,
    card: Annotated[bool, Option("--card", help="Print only the weights file's model card.")] = False,
) -> None:
    """Show a network layer by layer, with shapes, parameters, multiply-accumulates and the work for a whole scan."""
    from planar3d.networks.model_card import card_markdown, summarize_card

    if model is not None and network is not None:
        raise BadParameter("give either --model (a weights file) or --network, not both.")
    if card:
        if model is None:
            raise BadParameter("--card prints the card of a weights file; name it with --model.")
        show(card_markdown(model))
        return
    from planar3d.graph.described import described  # imports TensorFlow, like the following
    from planar3d.inference.plan import describe_work
    from planar3d.networks.summary import named_network, recipe_with, summarize_network

    if model is not None:
        opened = open_model(model, recipe, settings, size=size, depth=depth)
        shown, chosen, summary = opened.network(), opened.recipe, summarize_card(opened.card)
    else:
        chosen, summary = chosen_recipe(recipe or recipe_with(network), settings, size=size, depth=depth), []
        shown = named_network(network or chosen.network.name, chosen)
    for line in filter(None, [*summary, *summarize_network(shown, chosen), describe_work(described(shown), chosen)]):
        show(line)


def export(
    model: Model,
    out: Out,
    formats: Annotated[
        str | None,
        Option(
            "--format",
            help="openvino, onnx, savedmodel, litert; separate several with commas. Default: the first three, without "
            "savedmodel where Keras does not run on TensorFlow.",
        ),
    ] = None,
    recipe: Annotated[str | None, Option(help="Overrides the recipe in the weights file.")] = None,
    settings: Settings = None,
    size: Size = None,
    depth: Depth = None,
) -> None:
    """Export a trained network to other runtimes; each exported file is run and compared with Keras."""
    from planar3d.inference.export_formats import FORMATS
    from planar3d.sections import check_choice

    chosen = None if formats is None else [name.strip() for name in formats.split(",")]
    for name in chosen or ():
        check_choice("format", name, FORMATS)
    opened = open_model(model, recipe, settings, size=size, depth=depth)
    from planar3d.inference.export import export_network  # imports TensorFlow

    export_network(opened.network(), out, chosen, opened.recipe, notify=lambda e: say(str(e)))
