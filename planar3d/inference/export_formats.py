"""Export formats: how a network is written to a folder, and how the written file is run.

Each format has a function that writes it, and one that reads it from disk and runs it on a window.
"""

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from planar3d.conversion.held_objects import cloned, rebuilt
from planar3d.graph.described import described
from planar3d.inference.onnx_graph import onnx_model


@dataclass(frozen=True)
class Format:
    """A format: its writer, its runner, and their requirements."""

    write: Callable[[keras.Model, Path, Mapping[str, str]], None]  # (network, folder, metadata)
    # (folder, network's name, window) → output, both (batch, depth, rows, cols, channels).
    run: Callable[[Path, str, np.ndarray], np.ndarray]
    packages: tuple[str, ...] = ()  # that both import, of the extra with the format's name
    backend: str | None = None  # the only Keras backend that can write it; any if None


def _write_onnx(network: keras.Model, folder: Path, metadata: Mapping[str, str]) -> None:
    import onnx

    onnx.save(onnx_model(described(network), metadata), folder / f"{network.name}.onnx")


def _run_onnx(folder: Path, name: str, window: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    return session.run(["output"], {"input": window})[0]


def _write_openvino(network: keras.Model, folder: Path, metadata: Mapping[str, str]) -> None:
    import openvino

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


def _write_savedmodel(network: keras.Model, folder: Path, metadata: Mapping[str, str]) -> None:
    network.export(folder, format="tf_saved_model", verbose=False)


def _run_savedmodel(folder: Path, name: str, window: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(folder)  # keeps its variables alive
    return loaded.serve(window).numpy()


def _write_litert(network: keras.Model, folder: Path, metadata: Mapping[str, str]) -> None:
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


# 3D layers as 2D operations on slices, with the same weights and values, for LiteRT.


class SlicewiseConv3D(layers.Conv3D):
    """A Conv3D as the sum over its depth taps of Conv2D on shifted slices; for stride 1 and one group."""

    def call(self, inputs: Any) -> Any:
        """(batch, depth, rows, cols, channels) → (batch, depth', rows', cols', filters)."""
        taps, dilation = self.kernel_size[0], self.dilation_rate[0]
        reach = (taps - 1) * dilation
        if self.padding == "same" and reach:
            inputs = ops.pad(inputs, [(0, 0), (reach // 2, reach - reach // 2), (0, 0), (0, 0), (0, 0)])
        depth = inputs.shape[1] - reach
        convolve = functools.partial(ops.conv, padding=self.padding, dilation_rate=list(self.dilation_rate[1:]))
        stretches = [_slices(inputs[:, tap * dilation : tap * dilation + depth]) for tap in range(taps)]
        terms = [convolve(stretch, self.kernel[tap]) for tap, stretch in enumerate(stretches)]
        return _finished(self, functools.reduce(ops.add, terms), depth)


class SlicewiseConv3DTranspose(layers.Conv3DTranspose):
    """A Conv3DTranspose whose kernel is as deep as its stride: each tap gives separate slices; padding 'same'."""

    def call(self, inputs: Any) -> Any:
        """(batch, depth, rows, cols, channels) → (batch, depth · stride, rows · stride, cols · stride, filters)."""
        x = _slices(inputs)
        taps = [
            ops.conv_transpose(x, self.kernel[tap], list(self.strides[1:]), "same")
            for tap in range(self.kernel_size[0])
        ]
        return _finished(self, ops.stack(taps, axis=1), inputs.shape[1] * self.kernel_size[0])


class SlicewiseMaxPooling3D(layers.MaxPooling3D):
    """A MaxPooling3D without overlap: the maximum within slices, then over groups of slices."""

    def call(self, inputs: Any) -> Any:
        """(batch, depth, rows, cols, channels) → the same, with depth, rows and cols divided by the pool."""
        pool, depth = self.pool_size, inputs.shape[1] // self.pool_size[0]
        x = ops.max_pool(_slices(inputs[:, : depth * pool[0]]), pool[1:], pool[1:], "valid")
        return ops.max(ops.reshape(x, (-1, depth, pool[0], *x.shape[1:])), axis=2)


def slicewise(network: keras.Model) -> keras.Model:
    """A copy of a functional network of known sizes, with its 3D layers slice by slice where that is exact."""
    return cloned(network, _rewritten)


def _rewritten(layer: Any) -> Any:
    kind = type(layer)
    if kind is layers.Conv3D and layer.strides == (1, 1, 1) and layer.groups == 1:
        kind = SlicewiseConv3D
    elif kind is layers.Conv3DTranspose and layer.padding == "same" and layer.kernel_size[0] == layer.strides[0]:
        if layer.dilation_rate == (1, 1, 1) and layer.output_padding is None:
            kind = SlicewiseConv3DTranspose
    elif kind is layers.MaxPooling3D and layer.padding == "valid" and layer.strides == layer.pool_size:
        kind = SlicewiseMaxPooling3D
    return rebuilt(layer, kind)


def _finished(layer: Any, slices: Any, depth: int) -> Any:
    """Slices as (batch, depth, rows, cols, filters), with the layer's bias and activation."""
    y = ops.reshape(slices, (-1, depth, *slices.shape[-3:]))
    if layer.use_bias:
        y = ops.add(y, layer.bias)
    return y if layer.activation is None else layer.activation(y)


def _slices(x: Any) -> Any:
    """(batch, depth, …) → (batch · depth, …)."""
    return ops.reshape(x, (-1, *x.shape[2:]))
