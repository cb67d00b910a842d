"""Commands that generate or prepare scans: phantom, prepare."""

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from planar3d.commands.options import AssumeAffine, Cluster, Data, Folds, Out, RecipeName, Settings, Size, chosen_recipe
from planar3d.commands.output import say
from planar3d.errors import DatasetError
from planar3d.wording import counted


def phantom(
    out: Out,
    seed: Annotated[int, Option(min=0, help="The same seed gives the same phantom.")] = 0,
    reduction: Annotated[float, Option(help="Makes grids coarser by this factor.")] = 1.0,
    layout: Annotated[
        str,
        Option(
            help="msseg: heads with lesions; brats, decathlon: brains with tumours; chaos: abdomens; camus: hearts."
        ),
    ] = "msseg",
    scans_per_center: Annotated[int, Option(min=1, help="Scans for each of three centers.")] = 5,
    anatomy: Annotated[
        Path | None, Option(help="Folder of label maps of whole heads, from which FLAIR scans are generated.")
    ] = None,
    lesion_shapes: Annotated[
        Path | None, Option(help="With --anatomy: folder of lesion masks in MNI space; default: none.")
    ] = None,
) -> None:
    """Write the embedded phantom: heads, brains, abdomens or hearts from three centers, in a challenge's layout."""
    from planar3d.scans.phantom import write_phantom

    made: Any = layout
    if anatomy is not None or lesion_shapes is not None:
        from planar3d.training.synthesis import HeadGenerator, LesionShapes, phantom_of, read_anatomies

        if anatomy is None or layout != "msseg":
            raise DatasetError("--lesion-shapes needs --anatomy, and --anatomy needs --layout msseg.")
        shapes = LesionShapes.read(lesion_shapes) if lesion_shapes else None
        made = phantom_of(HeadGenerator(read_anatomies(anatomy), shapes))
    ids = write_phantom(
        out, seed=seed, scans_per_center=scans_per_center, reduction=reduction, layout=made, progress=say
    )
    say(f"{counted(ids, 'phantom scan')} in {out}; they are not patients.")


def prepare(
    data: Data,
    out: Out,
    recipe: RecipeName = "paper",
    settings: Settings = None,
    size: Size = None,
    folds: Folds = None,
    cluster: Cluster = None,
    assume_affine: AssumeAffine = False,
) -> None:
    """Prepare all scans of a data set for the network of a recipe."""
    from planar3d.scans.layouts import find_cases
    from planar3d.study.cluster import check_cluster
    from planar3d.study.reproduce import folds_for
    from planar3d.study.run_folder import start_run

    if cluster:  # whose workers may be in another folder
        check_cluster(cluster)
        data, out = data.absolute(), out.absolute()
    chosen, dataset = chosen_recipe(recipe, settings, size=size), find_cases(data)
    all_folds = folds_for(dataset, folds)
    from planar3d.study.preparing import prepare_scans  # imports TensorFlow

    run = start_run(out, dataset, chosen, all_folds)
    prepare_scans(run, say, assume_affine, cluster)
