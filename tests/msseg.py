"""A tiny data set in the layout of MSSEG 2016, for tests of the whole way."""

import narrow_encoder
import nibabel as nib
import numpy as np
from scipy import ndimage

from planar3d.networks.weights_file import save_weights
from planar3d.recipes import PAPER
from planar3d.training.initialization import initial_network

IDS = ("01A", "01B", "07A", "07B", "08A", "08B")
# What a full run needs, at a size that takes seconds.
TINY = (
    *("size=32", f"encoder={narrow_encoder.NAME}", "encoder_weights=none", "decoder_filters=4,4", "bridge_filters=4"),
    *("epochs=1", "learning_rate=1e-3", "threshold=128"),
)
RECIPE = PAPER.with_settings([*TINY])


def write_msseg(folder, ids=IDS, shape=(20, 28, 24)):
    """Write heads with bright lesions; every center has a grid of its own. Return the folder."""
    for number, name in enumerate(ids):
        rng = np.random.default_rng(number)
        grid = tuple(n + 2 * int(name[1]) for n in shape)
        head = 100 * ndimage.gaussian_filter(rng.random(grid), 2)
        corner = [n // 3 for n in grid]
        lesion = np.zeros(grid, np.uint8)
        lesion[corner[0] : corner[0] + 6, corner[1] : corner[1] + 7, corner[2] : corner[2] + 5] = 1
        affine = np.diag([-1.1, -1.0, 1.2, 1.0])
        path = folder / "TrainingDataset_MSSEG" / name
        path.mkdir(parents=True)
        nib.save(nib.Nifti1Image((head + 60 * lesion).astype(np.int16), affine), path / "3DFLAIR.nii.gz")
        nib.save(nib.Nifti1Image(lesion, affine), path / "Consensus.nii.gz")
    return folder


def write_model(folder):
    """Write the weights of an untrained network of the recipe; return their file."""
    return save_weights(initial_network(RECIPE), folder / "tiny.weights.h5", RECIPE)
