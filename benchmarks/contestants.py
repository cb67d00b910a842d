"""The contestants of alternatives.py: each reads the scan from a folder and returns the function to time.

The folder holds voxels.npy, the weights as network.weights.h5 and arrays.npz, and about.json.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from planar3d.recipes import Recipe
from planar3d.scans.windows import compose, cut_windows, network_input


def keras_predict(folder: Path, batch_size: int, policy: str) -> Callable[[], np.ndarray]:
    """The released method translated plainly: all windows in one array, `predict`, then equation 1."""
    import keras

    keras.config.set_dtype_policy(policy)
    network, recipe = _network(folder)
    voxels = np.load(folder / "voxels.npy")

    def inputs() -> np.ndarray:
        windows = cut_windows(voxels, recipe.depth, recipe.stride)
        return np.ascontiguousarray(network_input(windows, recipe.channels))

    network.predict(inputs()[:batch_size], batch_size=batch_size, verbose=0)
    return lambda: compose(
        network.predict(inputs(), batch_size=batch_size, verbose=0)[..., 0], recipe.stride, len(voxels)
    )


def torch_monai(folder: Path, precision: str) -> Callable[[], np.ndarray]:
    """MONAI's sliding windows, overlap 0.5, the overlapping probabilities averaged as it does by default."""
    import torch
    from monai.inferers import sliding_window_inference

    network, recipe, memory_format = _torch(folder)
    voxels = np.load(folder / "voxels.npy")

    def predict(volume: np.ndarray = voxels) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found = sliding_window_inference(
                _channels_first(network_input(volume, recipe.channels)[None]),
                (recipe.depth, *voxels.shape[1:3]),
                sw_batch_size=1,
                predictor=lambda window: network(window.contiguous(memory_format=memory_format)).float(),
                overlap=0.5,
            )
        return torch.as_tensor(found)[0, 0].numpy()

    predict(voxels[: recipe.depth])
    return predict


def torch_windowed(folder: Path, precision: str) -> Callable[[], np.ndarray]:
    """The torch network on every window, composed by equation 1."""
    import torch

    network, _, memory_format = _torch(folder)

    def run(window: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return network(_channels_first(window).contiguous(memory_format=memory_format)).float().numpy()[:, 0]

    return _windowed(folder, run)


def onnx_runtime(folder: Path) -> Callable[[], np.ndarray]:
    """The exported network in ONNX Runtime on every window, composed by equation 1."""
    import onnxruntime

    (path,) = (folder / "onnx").glob("*.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (name,) = (node.name for node in session.get_inputs())
    return _windowed(folder, lambda window: session.run(None, {name: np.ascontiguousarray(window)})[0][..., 0])


def openvino_runtime(folder: Path, precision: str) -> Callable[[], np.ndarray]:
    """The exported network in OpenVINO on every window, composed by equation 1."""
    import openvino

    (path,) = (folder / "openvino").glob("*.xml")
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return _windowed(folder, lambda window: model([np.ascontiguousarray(window)])[0][..., 0])


def export(kind: str, folder: Path) -> None:
    """Write the network for `onnx_runtime` or `openvino_runtime`."""
    from planar3d.inference.export import export_network

    if not (folder / kind).is_dir():
        network, recipe = _network(folder)
        export_network(network, folder, [kind], recipe)


def planar3d_predictor(folder: Path, method: str, engine: str, precision: str) -> Callable[[], np.ndarray]:
    """What this package does."""
    import keras

    from planar3d.inference.predictor import predictor

    if engine == "keras" and precision == "bf16":
        keras.config.set_dtype_policy("mixed_bfloat16")  # this engine computes as the network does
    network, recipe = _network(folder)
    predict = predictor(network, recipe, method=method, engine=engine, precision=precision)
    voxels = np.load(folder / "voxels.npy")
    return lambda: predict(voxels)


def read_about(folder: Path) -> tuple[Recipe, dict[str, Any]]:
    """The common recipe, and the other entries of about.json on the scan."""
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    return Recipe.from_json(about["recipe"]), about


def _network(folder: Path) -> tuple[Any, Recipe]:
    from planar3d.networks.weights_file import load_network

    return load_network(folder / "network.weights.h5")


def _torch(folder: Path) -> tuple[Any, Recipe, Any]:
    import torch
    from torch_network import torch_network

    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        network: Any = torch_network(dict(arrays))
    # In torch's default layout a window took twice as long (torch 2.13 on an AMD Zen 5).
    return network.to(memory_format=torch.channels_last_3d), read_about(folder)[0], torch.channels_last_3d


def _channels_first(windows: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(windows, -1, 1)))


def _windowed(folder: Path, run: Callable[[np.ndarray], np.ndarray]) -> Callable[[], np.ndarray]:
    """Run one window after another, after a warm-up on the first."""
    recipe, voxels = read_about(folder)[0], np.load(folder / "voxels.npy")

    def predict() -> np.ndarray:
        windows = cut_windows(voxels, recipe.depth, recipe.stride)
        found = [run(network_input(window[None], recipe.channels))[0] for window in windows]
        return compose(np.stack(found), recipe.stride, len(voxels))

    run(network_input(voxels[None, : recipe.depth], recipe.channels))
    return predict


@dataclass(frozen=True)
class Contestant:
    """A line of the table."""

    run: Callable[..., Callable[[], np.ndarray]]  # sets itself up and returns what is timed
    arguments: tuple[Any, ...] = ()
    needs: tuple[str, ...] = ()  # packages without which it is left out
    # Scans to predict. Who is done within seconds is timed on the second, when everything is compiled; the others have
    # seen one batch.
    calls: int = 1
    before: Callable[[Path], None] | None = None  # writes what it needs into the folder


REFERENCE = "keras, batch 2"
_OPENVINO = ("openvino", "onnx")
CONTESTANTS = {
    REFERENCE: Contestant(keras_predict, (2, "float32")),
    "keras, batch 1": Contestant(keras_predict, (1, "float32")),
    "keras, batch 2, mixed bf16": Contestant(keras_predict, (2, "mixed_bfloat16")),
    "torch, MONAI": Contestant(torch_monai, ("float32",), ("torch", "monai")),
    "torch, MONAI, autocast bf16": Contestant(torch_monai, ("bf16",), ("torch", "monai")),
    "torch, windowed": Contestant(torch_windowed, ("float32",), ("torch",)),
    "ONNX Runtime, windowed": Contestant(onnx_runtime, (), ("onnxruntime", "onnx"), before=partial(export, "onnx")),
    "OpenVINO, windowed": Contestant(openvino_runtime, ("f32",), _OPENVINO, before=partial(export, "openvino")),
    "OpenVINO, windowed, bf16": Contestant(openvino_runtime, ("bf16",), _OPENVINO, before=partial(export, "openvino")),
    "planar3d, shared, keras": Contestant(planar3d_predictor, ("shared", "keras", "float32"), calls=2),
    "planar3d, shared, keras, bf16": Contestant(planar3d_predictor, ("shared", "keras", "bf16"), calls=2),
    "planar3d, shared, openvino": Contestant(planar3d_predictor, ("shared", "openvino", "float32"), ("openvino",), 2),
    "planar3d, shared, openvino, bf16": Contestant(
        planar3d_predictor, ("shared", "openvino", "bf16"), ("openvino",), 2
    ),
}
