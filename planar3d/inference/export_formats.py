"""Export formats: how a network is written to a folder, and how the written file is run.

Each format has a function that writes it, and one that reads it from disk and runs it on a window.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from planar3d.inference.onnx_graph import onnx_model

# Keras is imported only for writing: the command line checks the names of formats without it.
if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Format:
    """A format: its writer, its runner, and their requirements."""

    write: Callable[["keras.Model", Path, Mapping[str, str]], None]  # (network, folder, metadata)
    # (folder, network's name, window) → output, both (batch, depth, rows, cols, channels).
    run: Callable[[Path, str, np.ndarray], np.ndarray]
    packages: tuple[str, ...] = ()  # that both import, of the extra with the format's name
    backend: str | None = None  # the only Keras backend that can write it; any if None


def _write_onnx(network: "keras.Model", folder: Path, metadata: Mapping[str, str]) -> None:
    import onnx

    from planar3d.graph.described import described

    onnx.save(onnx_model(described(network), metadata), folder / f"{network.name}.onnx")


def _run_onnx(folder: Path, name: str, window: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    return session.run(["output"], {"input": window})[0]


def _write_openvino(network: "keras.Model", folder: Path, metadata: Mapping[str, str]) -> None:
    import openvino

    from planar3d.graph.described import described

    model = openvino.Core().read_model(onnx_model(described(network), metadata).SerializeToString())
    for key, value in metadata.items():
        model.set_rt_info(value, ["planar3d", key.removeprefix("planar3d_")])
    # In float32 as trained; OpenVINO would round the weights to float16.
    openvino.save_model(model, folder / f"{network.name}.xml", compress_to_fp16=False)


def _run_openvino(folder: Path, name: str, window: np.ndarray) -> np.ndarray:
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # some file systems map no files
    # Without the hint some processors compute in bf16.
    compiled = core.compile_model(folder / f"{name}.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled({"input": window})[0]


def _write_savedmodel(network: "keras.Model", folder: Path, metadata: Mapping[str, str]) -> None:
    network.export(folder, format="tf_saved_model", verbose=False)


def _run_savedmodel(folder: Path, name: str, window: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(folder)  # keeps its variables alive
    return loaded.serve(window).numpy()


def _write_litert(network: "keras.Model", folder: Path, metadata: Mapping[str, str]) -> None:
    import keras

    from planar3d.inference.slicewise import slicewise

    # LiteRT has no 3D pooling, and its 3D convolution unrolls its input (27 times for conv91).
    (entry,) = network.inputs
    signature = keras.InputSpec(shape=(1, *entry.shape[1:]), dtype="float32", name="input")
    path = folder / f"{network.name}.tflite"
    slicewise(network).export(path, format="litert", verbose=False, input_signature=[signature])


def _run_litert(folder: Path, name: str, window: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    content = (folder / f"{name}.tflite").read_bytes()  # not its path: some file systems map no files
    call = Interpreter(model_content=content, num_threads=os.cpu_count()).get_signature_runner()
    (output,) = call(input=window).values()
    return output


FORMATS = {
    "openvino": Format(_write_openvino, _run_openvino, ("openvino", "onnx")),
    "onnx": Format(_write_onnx, _run_onnx, ("onnx", "onnxruntime")),
    "savedmodel": Format(_write_savedmodel, _run_savedmodel, backend="tensorflow"),
    "litert": Format(_write_litert, _run_litert, ("ai_edge_litert",), "tensorflow"),
}
