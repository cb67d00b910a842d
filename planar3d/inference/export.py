"""Export of trained networks to other runtimes; each file is run and compared with Keras before it is kept."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from planar3d import __version__
from planar3d.disk import require_room, require_temporary_room
from planar3d.errors import Planar3DError, path_of, text_of
from planar3d.extras import check_extra
from planar3d.files import folder_written_beside, read_json, write_json
from planar3d.graph.keras_graph import as_graph, layers_within
from planar3d.inference.export_formats import FORMATS, Format
from planar3d.inference.onnx_graph import AXES
from planar3d.locks import locked
from planar3d.networks.registry import refuse_other_ends
from planar3d.recipes import Recipe
from planar3d.recipes.recipe import check_recipe
from planar3d.sections import check_choice
from planar3d.training.backends import on_gpu
from planar3d.wording import listed

# Largest difference explained by another order of summation, with a margin, as a share of the output's range; wrong
# weights or layers give far more. A runtime may compute a sigmoid only to some 1e-7, of outputs above 1 of the largest.
TOLERANCE, _LEAST = 1e-4, 1e-6
_DESCRIPTION = "planar3d.json"
_NAMED = ".bin", ".onnx", ".tflite", ".xml"  # files of the network's name
_USUAL = "openvino", "onnx", "savedmodel"


@dataclass(frozen=True)
class Exported:
    """An exported file, and its largest difference from Keras on a window; as text, a line for the log."""

    format: str
    folder: Path
    difference: float

    def __str__(self) -> str:
        return f"{self.format:10s} {self.folder}  largest difference from Keras {self.difference:.1e}"


def export_network(
    network: keras.Model,
    folder: str | Path,
    formats: str | Sequence[str] | None = None,
    recipe: Recipe | None = None,
    notify: Callable[[Exported], None] = lambda exported: None,
) -> list[Exported]:
    """Export a network to other runtimes, and keep the files that agree with Keras.

    Each format gets a folder of its name with the model and `planar3d.json`: the recipe, the axes and values of
    input and output, the layers, and the difference from Keras. ONNX and OpenVINO files also have the first three in
    their metadata. A folder is either complete or absent.

    Args:
        network: float32, with one input and one output (batch, depth, rows, cols, channels) of known sizes.
        folder: gets `<format>/`.
        formats: one or several of `openvino` (IR in float32), `onnx`, `savedmodel`, and `litert` (only built-in
            operators, slice by slice, one window per call); default: the first three, without `savedmodel` where Keras
            does not run on TensorFlow.
        recipe: the recipe that the network was trained with, for the description.
        notify: called with each result.

    Returns:
        The exported files, with the largest difference in probability from Keras on a window of noise.

    Raises:
        RecipeError: the network's channels, windows or outputs differ from the recipe's.
        Planar3DError: an unknown format, something else in a folder's place or added to it, a missing package, a
            backend that the format does not support, a network in another precision, a layer that cannot be exported,
            or a difference above 1e-4 of the output's range and above 1e-6 (on a GPU 1e-4; for outputs above 1, of the
            largest).
    """
    if formats is None:
        formats = [name for name in _USUAL if FORMATS[name].backend in (None, keras.backend.backend())]
    chosen = {name: _format(name) for name in ([formats] if isinstance(formats, str) else formats)}
    as_graph(network)
    _check(network)
    if recipe is not None:
        check_recipe(recipe)
        refuse_other_ends(network, recipe)
    folder = path_of(folder, "The folder to export to")
    if "[" in text_of(folder, "a runtime") and "savedmodel" in chosen:
        raise Planar3DError(f"{folder}: TensorFlow takes [ for a pattern and reads no SavedModel there; name another.")
    for target in (folder / name for name in chosen):
        if target.exists() and not (target / _DESCRIPTION).is_file():
            raise Planar3DError(f"{target} exists, but is not an export of planar3d. Name another folder, or move it.")
    network = keras.Model(*network.inputs, *network.outputs, name=network.name)  # also of lists and dictionaries
    window = _noise(network)
    expected = np.asarray(network.predict_on_batch(window))
    if not np.isfinite(expected).all():
        raise Planar3DError(
            f"{network.name} gives values that are not finite for a window of noise, so no file can be compared with "
            "it. Check its weights."
        )
    least = TOLERANCE if on_gpu() else _LEAST  # GPUs round to TF32
    most = max(TOLERANCE * float(np.ptp(expected)), least * max(1.0, float(np.max(np.abs(expected)))))
    described = _description(network, recipe)
    metadata = {f"planar3d_{key}": json.dumps(value) for key, value in described.items()}
    results = []
    for name, made in chosen.items():
        with locked(folder, f"the export to {name}"), folder_written_beside(folder / name) as temporary:
            try:
                made.write(network, temporary, metadata)
                found = made.run(temporary, network.name, window)
            except (Planar3DError, MemoryError):
                raise
            except Exception as error:  # each runtime has errors of its own, also for a full disk
                size = 2**22 + 3 * sum(array.nbytes for array in network.get_weights())  # more than each format takes
                require_room(folder / name, size)
                require_temporary_room(error, size)  # of LiteRT, which has removed its files
                if isinstance(error, OSError):
                    raise
                reason = " ".join(str(error).split())[:200]
                raise Planar3DError(
                    f"{name}: {network.name} has a layer that this format cannot compute ({reason}); no file was kept. "
                    "Choose another format."
                ) from error
            difference = float(np.max(np.abs(found - expected))) if found.shape == expected.shape else float("nan")
            if not difference <= most:
                raise Planar3DError(
                    f"{name}: the file written for {network.name} gives {found.shape} and differs from Keras by up to "
                    f"{difference:.1e}, more than {most:.0e}; it was deleted. Please report this network."
                )
            write_json(temporary / _DESCRIPTION, described | {"largest_difference": difference})
            _refuse_added(folder / name, temporary)
        results.append(Exported(name, folder / name, difference))
        notify(results[-1])
    return results


def _refuse_added(before: Path, made: Path) -> None:
    """Refuse to replace an export to which somebody added files, such as a smaller model made from it."""
    if not before.exists():
        return
    former = read_json(before / _DESCRIPTION, lambda content: content["network"])  # after which files are named
    again = (path.with_stem(former) if path.suffix in _NAMED else path for path in made.rglob("*"))
    written = {str(path.relative_to(made)) for path in again}
    files = (str(path.relative_to(before)) for path in before.rglob("[!.]*") if not path.is_dir())
    if added := sorted(file for file in files if file not in written):
        raise Planar3DError(
            f"{before} also has {listed(added)}, which the export would remove. Move it, or name another folder."
        )


def _format(name: str) -> Format:
    check_choice("format", name, FORMATS, Planar3DError)
    made = FORMATS[name]
    if made.backend not in (None, keras.backend.backend()):
        raise Planar3DError(
            f"Format {name} is written with {made.backend}, but Keras runs on {keras.backend.backend()}; set "
            f"KERAS_BACKEND={made.backend}."
        )
    if made.packages:
        check_extra(name, *made.packages)
    return made


def _check(network: keras.Model) -> None:
    shapes = [tuple(end.shape) for end in (*network.inputs, *network.outputs)]
    if len(shapes) != 2 or any(len(shape) != 5 or None in shape[1:] for shape in shapes):
        raise Planar3DError(
            f"{network.name} has inputs and outputs of {shapes}; export needs one input and one output "
            f"({', '.join(AXES)}) with all sizes known except the batch."
        )
    other = next((layer for layer in layers_within(network) if layer.compute_dtype != "float32"), None)
    if other is not None:
        raise Planar3DError(
            f"Layer {other.name} computes in {other.compute_dtype}; to export the network, build it in float32 and "
            "load its weights."
        )
    taken, given = (tensor.dtype for tensor in (*network.inputs, *network.outputs))
    if not taken == given == "float32":
        raise Planar3DError(
            f"{network.name} takes {taken} and gives {given}, but exported files take and give float32; rebuild its "
            "input or output in float32."
        )


def _noise(network: keras.Model) -> np.ndarray:
    """Noise from coarse to fine, another in each channel, (1, depth, rows, cols, channels), in [-1, 1)."""
    *sizes, channels = network.input_shape[1:]
    rng = np.random.default_rng(0)
    total = np.full((*sizes, channels), -1.0)
    for step in (1, 4, 16):
        coarse = rng.random((*(-(-size // step) for size in sizes), channels))
        fine = coarse.repeat(step, 0).repeat(step, 1).repeat(step, 2)
        total += fine[tuple(map(slice, sizes))] * 2 / 3
    return total[np.newaxis].astype(np.float32)


def _description(network: keras.Model, recipe: Recipe | None) -> dict[str, Any]:
    output = {"axes": AXES, "shape": [None, *network.output_shape[1:]], "values": "float32"}
    if recipe is not None:  # with the labels of each channel, whose probability it is
        output |= {"values": "probabilities, float32", "labels": recipe.targets.channels}
    return {
        "planar3d": __version__,
        "network": network.name,
        "recipe": None if recipe is None else recipe.to_json(),
        "input": {
            "name": "input",
            "axes": AXES,
            "shape": [None, *network.input_shape[1:]],
            **({} if recipe is None else recipe.preparation.describe()),
        },
        "output": output,
        "layers": [layer.name for layer in network.layers],
    }
