"""Named arrays from weights files of any origin."""

import os

from planar3d.transfer.array_files import Arrays, read_directly
from planar3d.transfer.published_models import find_model
from planar3d.transfer.rehearsal import rehearse


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """Read the named arrays of a weights file of any known format, identified by its content.

    Args:
        path: a Keras 2 or 3 `.h5` (weights only or a whole model), `.weights.h5`, `.keras`, `.npz` or `.onnx`, or the
            name of a published model.

    Returns:
        Arrays by `layer/weight`: `block1_conv1/kernel` (kh, kw, cin, cout), `block1_conv1/bias` (cout,), `bn/gamma`, ….
        Weights without a name in the file are numbered: `layer/0`, `layer/1`, ….

    Raises:
        WeightsError: the file is missing, damaged, of unknown format, or unsafe: pickled objects, links to other
            files, paths outside an archive, impossible sizes, or too much time or memory; or its values are not finite
            or do not match its model card.
    """
    path = find_model(path)
    rehearse(path)
    return read_directly(path)
