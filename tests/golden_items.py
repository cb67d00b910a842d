"""What must stay as it is: prepared scans, composed windows and masks of the published model, on phantom scans.

`python tests/golden_items.py` records them anew, or under other conditions beside those there are. Do so only in a
change that means to change them, and say so in its message.
"""

import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as conftest.py has it

import keras
import numpy as np

from planar3d.environment import processor
from planar3d.inference.predictor import predict_volume
from planar3d.inference.prepared_scan import lesion_mask, prepare
from planar3d.inference.segmenter import segment
from planar3d.networks.registry import recipe_network
from planar3d.networks.weights_file import read_recipe
from planar3d.recipes import DEMO, PAPER, RELEASED
from planar3d.scans.phantom import write_phantom
from planar3d.scans.volume import read_scan

FOLDER = Path(__file__).parent / "golden"
DIGESTS, ARRAYS = FOLDER / "digests.json", FOLDER / "arrays.npz"


def computed(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Each item by its name, uint8; `folder` gets the phantom."""
    names = write_phantom(folder, scans_per_center=1, reduction=4)
    found = [next(folder.rglob(f"{name}/3DFLAIR.nii.gz")) for name in names[:2]]
    for recipe in (PAPER, RELEASED, DEMO):
        recipe = recipe.changed(size=32, decoder_filters=(4, 4, 4, 4), bridge_filters=4)
        prepared = prepare(read_scan(found[0]), recipe)
        yield f"{recipe.name} prepared", prepared.voxels[..., 0]
        keras.utils.set_random_seed(0)
        network = recipe_network(recipe)
        output = network.get_layer("conv10")
        output.kernel.assign(20 * output.kernel)  # probabilities all over (0, 1)
        probabilities = predict_volume(network, prepared.voxels, recipe, "windowed")
        mask = lesion_mask(probabilities, recipe.changed(threshold=128), prepared.geometry.spacing)
        yield f"{recipe.name} composed", mask
    # A sixteenth of the pixels, so that the tests do not take minutes.
    recipe = read_recipe("ms-flair-open").changed(size=64, pixel_mm=3.6, threshold=4, planes="whole")
    for name, path in zip(names, found, strict=False):
        yield (
            f"ms-flair-open {name}",
            segment(path, "ms-flair-open", recipe, engine="keras", precision="float32").voxels,
        )


def conditions() -> str:
    """What sums are rounded by: the processor with its instructions, and the libraries that compute."""
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").is_file() else []
    instructions = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", "numpy", "scipy")]
    return ", ".join([processor(), *instructions, *libraries])


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's shape and bytes."""
    return hashlib.sha256(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def record() -> None:
    """Write the digests of these conditions and the arrays that changed, whose other digests are dropped."""
    from test_golden import assert_close

    with tempfile.TemporaryDirectory() as folder:
        items = dict(computed(Path(folder)))
    digests = json.loads(DIGESTS.read_text()) if DIGESTS.is_file() else {}
    with np.load(ARRAYS) as file:
        kept = dict(file)
    for name, array in items.items():
        try:
            assert_close(array, kept[name])
        except (KeyError, AssertionError):
            kept[name] = array
            digests = {of: {other: its[other] for other in its if other != name} for of, its in digests.items()}
    np.savez_compressed(ARRAYS, **{name: kept[name] for name in items})
    digests[conditions()] = {name: digest(array) for name, array in items.items()}
    DIGESTS.write_text(json.dumps(digests, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    record()
