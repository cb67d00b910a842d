"""Commands that segment scans, and compare and score masks: predict, status, table, compare, evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Exit, Option

if TYPE_CHECKING:
    from planar3d.scans.inputs import Given

from planar3d.commands.options import AsJson, AssumeAffine, Cluster, Out, Settings, Size, open_models
from planar3d.commands.output import give, list_failed, log, print_json, say
from planar3d.errors import RecipeError, ScanError
from planar3d.wording import counted, score_text


def predict(
    model: Annotated[
        str,
        Option(
            help="Weights file of a trained network, or a published model: ms-flair-open. Probabilities of several "
            "models, separated by commas, are averaged."
        ),
    ],
    out: Out,
    inputs: Annotated[
        list[Path] | None,
        Argument(
            help="FLAIR scans: .nii, .nii.gz, .mgz, .nrrd, .mha, .hdr with .img, folders, BIDS data sets, DICOM "
            "series, CSV tables. For models of several images: BraTS, nnU-Net or BIDS folders, CSV tables."
        ),
    ] = None,
    image: Annotated[
        list[str] | None, Option(help="One image of a case: name=file, e.g. t1ce=c.nii.gz; repeat for each image.")
    ] = None,
    recipe: Annotated[str | None, Option(help="Overrides the recipe in the weights file.")] = None,
    settings: Settings = None,
    size: Size = None,
    method: Annotated[str, Option(help="shared (faster), windowed (as in the paper), or auto.")] = "auto",
    engine: Annotated[str, Option(help="keras, openvino, or auto (the fastest).")] = "auto",
    precision: Annotated[
        str | None,
        Option(
            help="float32, bf16 (bfloat16) or int8; default, with --engine auto: bf16 if its mask agrees with float32."
        ),
    ] = None,
    batch_size: Annotated[int, Option(min=1, help="Windows per batch, with --method windowed.")] = 1,
    probability: Annotated[bool, Option("--probability", help="Also write the map of lesion probabilities.")] = False,
    overlay: Annotated[bool, Option("--overlay", help="Also write a picture of the mask on the scan.")] = False,
    report: Annotated[
        bool, Option("--report", help="Also write an HTML page for each scan, and one for all scans.")
    ] = False,
    dicom_seg: Annotated[
        bool, Option("--dicom-seg", help="Also write lesions of DICOM series as DICOM Segmentation objects.")
    ] = False,
    dicom_sr: Annotated[
        bool,
        Option(
            "--dicom-sr",
            help="Also write the number and volumes of lesions as DICOM structured reports; implies --dicom-seg.",
        ),
    ] = False,
    same_format: Annotated[
        bool, Option("--same-format", help="Also write the mask in the scan's own format: mgz, nrrd, mha …")
    ] = False,
    label_tables: Annotated[
        bool, Option("--label-tables", help="Also write label names and colours for ITK-SNAP, FSLeyes, FreeView.")
    ] = False,
    instances: Annotated[bool, Option("--instances", help="Also write a map of individual, numbered lesions.")] = False,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Segment finished scans again and replace their outputs.")
    ] = False,
    part: Annotated[
        str | None, Option(help="Segment only a part of the scans, e.g. 3/20: part 3 of 20, by name.")
    ] = None,
    cluster: Cluster = None,
    as_json: AsJson = False,
    assume_affine: AssumeAffine = False,
) -> None:
    """Segment raw scans, or cases of several images, on their own grids. Finished scans are skipped."""
    from planar3d.study.cohort import segment_all
    from planar3d.study.cohort_folder import takes_part
    from planar3d.study.segmented import Request

    request = Request(
        method=method,
        engine=engine,
        precision=precision,
        batch_size=batch_size,
        assume_affine=assume_affine,
        overwrite=overwrite,
        probability=probability,
        overlay=overlay,
        report=report,
        dicom_seg=dicom_seg,
        dicom_sr=dicom_sr,
        same_format=same_format,
        label_tables=label_tables,
        instances=instances,
    )
    given: list[Given] = [*(inputs or []), *([_by_name(image)] if image else [])]
    models = open_models(model, recipe, settings, size)
    takes = takes_part(part) if part else None
    segmented = segment_all(given, models, out, request=request, notify=log(as_json), takes=takes, cluster=cluster)
    if as_json:
        print_json({"scans": segmented.records, "failed": {str(k): why for k, why in segmented.failed.items()}})
    if segmented.failed:
        raise Exit(1)


def status(folder: Annotated[Path, Argument(help="Output folder of predict.")], as_json: AsJson = False) -> None:
    """Show which scans of a folder are done, failed, claimed (by which process, since when) or missing."""
    from planar3d.study.cohort_folder import CohortFolder

    standing = CohortFolder(folder).opened().standing()
    others = {"failed": standing.failed, "claimed": standing.claimed, "missing": standing.missing}
    lines = [f"{what}  {path}{why and ': '}{why}" for what, scans in others.items() for path, why in scans.items()]
    give(vars(standing), [str(standing), *lines], as_json)


def table(folder: Annotated[Path, Argument(help="Output folder of predict.")], as_json: AsJson = False) -> None:
    """Rewrite the tables of a folder of masks: scans.csv with a row per scan, lesions.csv with a row per lesion."""
    from planar3d.study.cohort_folder import CohortFolder
    from planar3d.study.cohort_report import LESIONS, SCANS, write_cohort_tables

    cohort = CohortFolder(folder).opened()
    with cohort.alone(log(as_json)):
        standing, records = cohort.read()
        scans = write_cohort_tables(folder, records, standing.failed)
    list_failed(standing.failed, as_json)
    if as_json:
        lesions = [{"scan": record["scan"]["name"], **lesion} for _, record in records for lesion in record["lesions"]]
        print_json({"scans": scans, "lesions": lesions})
        return
    say(f"{counted(scans, 'scan')}: {folder / SCANS}, {folder / LESIONS}")


def _by_name(words: list[str]) -> dict[str, Path]:
    """The files of `name=file`, by their names."""
    named = dict[str, Path]()
    for word in words:
        name, _, path = word.partition("=")
        if not name or not path:
            raise BadParameter(f"--image {word}: a name and a file are needed, as in --image t1ce=c.nii.gz.")
        if name in named:
            raise BadParameter(f"--image {name} is given twice; one case has one image of each name.")
        named[name] = Path(path)
    return named


def _both(masks: tuple[Path, Path] | None) -> tuple[Path, Path] | None:
    """Two masks; with only one, the next option is read as the second, and its value as another argument."""
    if masks and any(path.name.startswith("--") for path in masks):
        raise BadParameter("the masks of both scans are needed, BASELINE FOLLOWUP.")
    return masks


def compare(
    baseline: Annotated[Path, Argument(help="Scan of the first visit.")],
    followup: Annotated[Path, Argument(help="Scan of a later visit, of the same patient and sequence.")],
    out: Out,
    masks: Annotated[
        tuple[Path, Path] | None,
        Option(metavar="BASELINE FOLLOWUP", help="Lesion masks of both scans, instead of --model.", callback=_both),
    ] = None,
    model: Annotated[str | None, Option(help="Weights file or published model; several as in predict.")] = None,
    recipe: Annotated[str | None, Option(help="Overrides the recipe in the weights file.")] = None,
    settings: Settings = None,
    as_json: AsJson = False,
    assume_affine: AssumeAffine = False,
) -> None:
    """Classify lesions of two visits as new, enlarging, shrinking, gone or stable, with a report that shows both."""
    from planar3d.extras import check_study_extra
    from planar3d.scans.inputs import read_one
    from planar3d.scans.volume import read_mask
    from planar3d.study.visits import comparison_files, write_comparison

    if (masks is None) == (model is None):
        raise BadParameter("give either --masks BASELINE FOLLOWUP, or --model to segment both scans.")
    check_study_extra()
    scans = [read_one(path, assume_affine) for path in (baseline, followup)]
    comparison_files(out, *scans)  # before long work
    about = None
    if model is None:
        assert masks is not None
        found = [read_mask(path, scan, assume_affine) for path, scan in zip(masks, scans, strict=True)]
    else:
        from planar3d.inference.segmenter import Segmenter, segment_case
        from planar3d.study.segmented import describe_models

        segmenter = Segmenter(models := open_models(model, recipe, settings))
        if len(segmenter.recipes[0].targets.names) > 1:
            raise RecipeError("compare takes one target, but the model has several. Give one target's masks: --masks.")
        found, about = [segment_case(scan, segmenter) for scan in scans], describe_models(models)
    content = write_comparison((scans[0], found[0]), (scans[1], found[1]), out, about)
    for warning in content["warnings"]:
        log(as_json)(warning["sentence"])
    shown = content["counts"] | {"correlation": f"{content['correlation']:.2f}"}
    lines = [f"{name:12s} {value}" for name, value in shown.items()]
    give(content, [*lines, f"Page: {out / 'comparison.html'}"], as_json)


def evaluate(
    prediction: Annotated[
        Path, Argument(help="Predicted mask, on the grid of the reference; or a folder that predict wrote.")
    ],
    reference: Annotated[Path, Argument(help="Expert mask; or the data set of the scans, with masks.")],
    out: Annotated[
        Path | None, Option(help="For a folder: also write the scores of every scan to this CSV file.")
    ] = None,
    as_json: AsJson = False,
    assume_affine: AssumeAffine = False,
) -> None:
    """Score predicted masks against expert masks, by voxels, lesions and surfaces."""
    from planar3d.evaluation.scores import MEASURES, score_scan
    from planar3d.scans.nifti import volume_of
    from planar3d.scans.readers import is_foreign
    from planar3d.scans.volume import is_placed, read_mask

    if prediction.is_dir():
        from planar3d.study.cohort_scores import mean_scores, score_masks

        rows = score_masks(prediction, reference, log(as_json), assume_affine, out)
        give(rows, mean_scores(rows), as_json)
        return
    if not volume_of(prediction)[0].exists():
        raise ScanError(f"{prediction} does not exist; name a mask, or the folder that predict wrote.")
    if reference.is_dir() and not is_foreign(reference):
        raise ScanError(
            f"{reference} is a folder, but {prediction} is not; name two masks, or a folder of masks and then the "
            "data set of the scans."
        )
    if out:
        raise BadParameter(f"--out is only for a folder of masks, but {prediction} is not a folder.")
    if is_placed(reference):
        expert = read_mask(reference)
        predicted = read_mask(prediction, expert, assume_affine)
    else:
        predicted = read_mask(prediction, None, assume_affine)
        expert = read_mask(reference, predicted, assume_affine)
    scores = score_scan(expert.voxels, predicted.voxels, expert.affine)
    lines = [f"{name:24s} {score_text(value, MEASURES[name].digits)}" for name, value in scores.items()]
    give(scores, lines, as_json)
