"""The data for training on another machine, in one small folder: scans, label maps, lesion shapes, ImageNet weights.

    python experiments/open_model/packed.py --data DATA --imagenet vgg16_imagenet_conv.npz --out .dev [--maps 17]

DATA has `ms_flair`, `open_ms`, `open_ms_more`, `mslesseg` and `synthseg_label_maps`. Scans are stored in 8 bits with
the median of the head at 100, as in the preparation of `modern`, from which they differ by at most one grey level.
"""

import io
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import nibabel as nib
import numpy as np
import typer

from planar3d.cli import main
from planar3d.scans.intensities import MEDIAN_LEVEL, head_median, head_threshold
from planar3d.scans.layouts import find_cases
from planar3d.scans.volume import Scan, read_mask, read_scan
from planar3d.transfer.array_files import read_directly
from planar3d.transfer.published_models import find_model

if TYPE_CHECKING:
    from planar3d.training.synthesis import Anatomy

PUBLISHED, FOLDS = "ms-flair-open", 3
TEST_MAPS = 6  # the last label maps by name, not used for training
OTHERS = {
    "open-ms-26": ("open_ms/patient26/FLAIR.nii.gz", "open_ms/patient26/gold_standard.nii.gz"),
    "open-ms-19": ("open_ms_more/patient19/FLAIR.nii.gz", "open_ms_more/patient19/gold_standard.nii.gz"),
    "p39": ("mslesseg/P39/FLAIR.nii.gz", "mslesseg/P39/MASK.nii.gz"),
}
_SCANNED = ("patient19", "patient26")
_STEPS = 6  # quantization steps per standard deviation of a kernel


@dataclass(frozen=True)
class Packed:
    """A scan with its experts' mask, and its source: `home-1` to `home-3` by fold, `open-ms`, `p39`."""

    name: str
    source: str
    scan: Scan
    lesions: Scan


def run(
    data: Annotated[Path, typer.Option("--data", help="Folder of the data sets.")],
    imagenet: Annotated[Path, typer.Option("--imagenet", help="VGG-16, see weights/README.md.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path(".dev"),
    maps: Annotated[int, typer.Option("--maps", help="Label maps; the last 6 by name are for tests.")] = 20,
) -> None:
    """Write the folder, and print its size."""
    out.mkdir(parents=True, exist_ok=True)
    for packed in scans_of(data):
        write_scan(out / f"scan-{packed.name}.xz", packed)
    write_arrays(out / "imagenet.xz", imagenet_arrays(imagenet))
    write_heads(data, out, maps)
    size = sum(path.stat().st_size for path in out.iterdir())
    typer.echo(f"{out}: {len(list(out.iterdir()))} files, {size:,} bytes")


def scans_of(data: Path) -> Iterator[Packed]:
    """The nine patients of the home site, by the fold that tests them, and those of other sites."""
    from planar3d.study.reproduce import folds_for

    dataset = find_cases(data / "ms_flair")
    cases = dataset.by_id()
    for number, fold in enumerate(folds_for(dataset, str(FOLDS)), start=1):
        for name in fold.test:
            yield _read(name, f"home-{number}", Path(cases[name].images["flair"]), cases[name].label_map)
    for name, (scan, mask) in OTHERS.items():
        yield _read(name, "p39" if name == "p39" else "open-ms", data / scan, data / mask)


def _read(name: str, source: str, path: Path, mask: Any) -> Packed:
    scan = read_scan(path)
    return Packed(name, source, Scan(eight_bit(scan.voxels), scan.header), read_mask(mask, scan))


def eight_bit(voxels: np.ndarray) -> np.ndarray:
    """Grey levels uint8 with the median of the head at 100."""
    median = head_median(voxels, head_threshold(voxels))
    return np.clip(np.rint(voxels * (MEDIAN_LEVEL / median)), 0, 255).astype(np.uint8)


def write_scan(path: Path, packed: Packed) -> None:
    """Write a scan and its mask."""
    about = json.dumps({"name": packed.name, "source": packed.source})
    write_arrays(
        path,
        {
            "voxels": packed.scan.voxels.T,
            "lesions": np.packbits(packed.lesions.voxels.T > 0),
            "header": np.frombuffer(packed.scan.header.binaryblock, np.uint8),
            "about": np.frombuffer(about.encode(), np.uint8),
        },
    )


def read_packed(path: Path) -> Packed:
    """Read the output of `write_scan`; voxels are float32, as in a scan read from its file."""
    arrays = read_arrays(path)
    about, header = json.loads(arrays["about"].tobytes()), nib.Nifti1Header(arrays["header"].tobytes())
    voxels = arrays["voxels"]
    lesions = np.unpackbits(arrays["lesions"])[: voxels.size].reshape(voxels.shape)
    return Packed(
        about["name"], about["source"], Scan(voxels.T.astype(np.float32), header), Scan(lesions.T.copy(), header)
    )


def imagenet_arrays(imagenet: Path) -> dict[str, np.ndarray]:
    """The arrays of `modern`'s initial encoder that differ from the published network's, with quantized kernels."""
    from planar3d.recipes import MODERN
    from planar3d.training.initialization import initial_network
    from planar3d.transfer.weight_places import places_of

    network = initial_network(MODERN.changed(encoder_weights=str(imagenet), precision="float32"))
    published, arrays = read_directly(find_model(PUBLISHED)), {}
    for place in places_of(network):
        name, begun = place.weight.name, np.asarray(place.variable, np.float32)
        if name.startswith(("block3", "block4")):
            moved, step = begun - published[name].astype(np.float32), float(begun.std()) / _STEPS
            steps = np.rint(moved / step)
            kept = name.endswith("bias") or np.abs(steps).max() > np.iinfo(np.int8).max
            arrays[name] = begun if kept else steps.astype(np.int8)
            arrays[f"{name}/step"] = np.float32(0 if kept else step)
    return arrays


def imagenet_start(path: Path) -> dict[str, np.ndarray]:
    """The arrays of `modern`'s initial encoder: blocks 1 and 2 as published, which were never trained."""
    published, packed = read_directly(find_model(PUBLISHED)), read_arrays(path)
    start = {name: array for name, array in published.items() if name.startswith(("block1", "block2"))}
    for name in (name for name in packed if not name.endswith("/step")):
        step = float(packed[f"{name}/step"])
        start[name] = packed[name] * np.float32(step) + published[name].astype(np.float32) if step else packed[name]
    return start


def write_heads(data: Path, out: Path, maps: int) -> None:
    """Write the label maps and lesion shapes for generating heads, with the maps for tests apart."""
    from planar3d.training.synthesis import LesionShapes, read_anatomy

    paths = sorted((data / "synthseg_label_maps").glob("*.nii.gz"))
    train, test = paths[:-TEST_MAPS], paths[-TEST_MAPS:]
    for kind, some in (("train", train[: maps - TEST_MAPS]), ("test", test)):
        for path in some:
            write_arrays(out / f"{kind}-{path.name.split('.')[0]}.xz", vars(read_anatomy(path)))
    with TemporaryDirectory() as folder:  # without masks of these scans, so that an excluded source stays unknown
        for path in sorted((data / "open_ms_more" / "lesion_masks_mni").glob("*.nii.gz")):
            if not path.name.startswith(_SCANNED):
                Path(folder, path.name).symlink_to(path.absolute())
        LesionShapes.read(folder).save(out / "shapes.npz")


def read_anatomies(data: Path, kind: str) -> "tuple[Anatomy, ...]":
    """The heads for training (`"train"`) or for tests."""
    from planar3d.training.synthesis import Anatomy

    found = [read_arrays(path) for path in sorted(data.glob(f"{kind}-*.xz"))]
    return tuple(Anatomy(each["labels"], each["affine"], str(each["name"])) for each in found)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays, compressed."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    path.write_bytes(lzma.compress(file.getvalue(), preset=6))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the output of `write_arrays`."""
    with np.load(io.BytesIO(lzma.decompress(path.read_bytes()))) as file:
        return {name: file[name] for name in file.files}


if __name__ == "__main__":
    main(run)
