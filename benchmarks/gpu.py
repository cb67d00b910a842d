"""Inference and training on one GPU: windows and slices per second, memory, share of the measured matrix rate.

    KERAS_BACKEND=torch python benchmarks/gpu.py --batches 1,2,4,8 --precisions float32,bf16,float16
    python benchmarks/gpu.py --device-less --size 32 --batches 1 --precisions float32

Needs Keras, one of its backends, and this package. Timed are `predict_on_batch` and `train_on_batch` of the planar
res-u-net with a frozen encoder, including copies to and from the device. Each measurement runs in a separate process,
so that one that runs out of memory ends no other. The weights are random.
"""

import os
import time
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from side_by_side import conditions, measure, record, table

from planar3d.cli import main

WARM_CALLS = 2  # that trace, compile and choose algorithms
DTYPES = {"float32": "float32", "bf16": "bfloat16", "float16": "float16"}


def matrices(precision: str, seconds: float) -> Callable[[], dict[str, Any]]:
    """The rate of repeated large matrix products, in the arithmetic that the backend chooses for the type."""
    import keras
    from keras import ops

    from planar3d.training.backends import on_gpu

    size = 8192 if on_gpu() else 1024
    left, right = (keras.random.normal((size, size), dtype=DTYPES[precision], seed=seed) for seed in (0, 1))

    def multiply() -> None:
        for _ in range(10):
            product = ops.matmul(left, right)
        ops.convert_to_numpy(product[:1, :1])  # waits for all of them

    return lambda: {
        "backend": keras.backend.backend(),
        "device": _of_gpu("name") or "CPU",
        "on_gpu": on_gpu(),
        "rate": 10 * 2 * size**3 * _calls_a_second(multiply, seconds),
    }


def network_calls(
    task: str, precision: str, batch: int, depth: int, size: int, seconds: float
) -> Callable[[], dict[str, Any]]:
    """Calls per second of a task, the work of a call, and the device's peak memory."""
    import numpy as np

    from planar3d.graph.described import layer_costs
    from planar3d.recipes import PAPER
    from planar3d.training.fit import compiled
    from planar3d.training.initialization import initial_network

    recipe = PAPER.changed(encoder_weights="none", precision=precision, depth=depth, size=size, stride=depth // 2)
    network = initial_network(recipe)
    rng = np.random.default_rng(0)
    windows = rng.uniform(-1, 1, (batch, *network.input_shape[1:])).astype(np.float32)
    masks = (rng.random(windows.shape[:-1]) < 0.01).astype(np.uint8)[..., None]
    macs = {cost.name: cost.macs for cost in layer_costs(network)}
    forward = sum(macs.values())
    # Backwards a trained layer works twice: towards its kernel and towards its input.
    backward = 2 * sum(macs[layer.name] for layer in network.layers if layer.trainable_variables)
    trainer = compiled(network, recipe)
    call, work = {
        "inference": (lambda: network.predict_on_batch(windows), forward),
        "training": (lambda: trainer.train_on_batch(windows, masks), forward + backward),
    }[task]
    return lambda: {
        "calls": _calls_a_second(call, seconds, lambda: _of_gpu("forget")),
        "flop": 2 * work * batch,
        "peak": _of_gpu("peak"),
    }


def _calls_a_second(call: Callable[[], Any], seconds: float, warmed: Callable[[], None] = lambda: None) -> float:
    for _ in range(WARM_CALLS):
        call()
    warmed()
    start, calls = time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - start < seconds:
        call()
        calls += 1
    return calls / (time.perf_counter() - start)


class _Gpu(NamedTuple):
    """A backend's information on its GPU: name, peak memory in bytes, and how to reset the peak."""

    name: Callable[[Any], str]
    peak: Callable[[Any], int]
    forget: Callable[[Any], None]


_GPUS = {
    "tensorflow": _Gpu(
        lambda tf: tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])["device_name"],
        lambda tf: tf.config.experimental.get_memory_info("GPU:0")["peak"],
        lambda tf: tf.config.experimental.reset_memory_stats("GPU:0"),
    ),
    "torch": _Gpu(
        lambda torch: torch.cuda.get_device_name(),
        lambda torch: torch.cuda.max_memory_allocated(),
        lambda torch: torch.cuda.reset_peak_memory_stats(),
    ),
    "jax": _Gpu(
        lambda jax: jax.devices()[0].device_kind,
        lambda jax: jax.local_devices()[0].memory_stats()["peak_bytes_in_use"],
        lambda jax: None,  # not possible
    ),
}


def _of_gpu(part: str) -> Any:
    """Ask the backend; None without a GPU."""
    import keras

    from planar3d.training.backends import on_gpu

    backend = keras.backend.backend()
    return getattr(_GPUS[backend], part)(import_module(backend)) if on_gpu() else None


def _row(task: str, precision: str, batch: int, depth: int, size: int, seconds: float, rate: float) -> list[str]:
    about = [task, precision, str(batch)]
    try:
        found = measure(network_calls, task, precision, batch, depth, size, seconds).value
    except SystemExit as ended:
        return [*about, *["–"] * 4, f"did not run: {ended}"]
    windows, flops = found["calls"] * batch, found["calls"] * found["flop"]
    peak = "–" if found["peak"] is None else f"{found['peak'] / 2**30:.1f}"
    return [
        *about,
        f"{windows:.2f}",
        f"{windows * depth:.1f}",
        peak,
        f"{flops / 1e12:.3g}",
        f"{100 * flops / rate:.0f} %",
    ]


def run(
    size: Annotated[int, typer.Option("--size", help="Rows and columns of a window.")] = 256,
    depth: Annotated[int, typer.Option("--depth", help="Slices of a window.")] = 16,
    batches: Annotated[str, typer.Option("--batches", help="Batch sizes, separated by commas.")] = "1,2,4,8",
    precisions: Annotated[
        str, typer.Option("--precisions", help="Any of float32, bf16, float16, separated by commas.")
    ] = "float32,bf16,float16",
    tasks: Annotated[str, typer.Option("--tasks", help="Any of inference, training.")] = "inference,training",
    seconds: Annotated[float, typer.Option("--seconds", help="Seconds of each measurement.")] = 5.0,
    device_less: Annotated[bool, typer.Option("--device-less", help="Run without a GPU, to try the script.")] = False,
) -> None:
    """Measure, print, and where a GPU was used record the table in RESULTS.md."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    rows, rates, device = [], [], {}
    for precision in precisions.split(","):
        device = measure(matrices, precision, seconds).value
        if not device["on_gpu"] and not device_less:
            raise SystemExit(f"Keras on {device['backend']} sees no GPU; --device-less tries the script on the CPU.")
        rates.append(f"{precision} {device['rate'] / 1e12:.3g} TFLOP/s")
        for task in tasks.split(","):
            for batch in map(int, batches.split(",")):
                rows.append(_row(task, precision, batch, depth, size, seconds, device["rate"]))
                print("  ".join(rows[-1]), flush=True)
    headings = ["task", "precision", "batch", "windows/s", "slices/s", "peak GiB", "TFLOP/s", "share of matrix rate"]
    title = f"{device['device']}, Keras on {device['backend']}: windows of {depth} × {size} × {size}"
    text = f"{conditions()}\nMatrix products: {', '.join(rates)}.\n\n{table(headings, rows)}"
    if device["on_gpu"]:
        record(title, text)
    else:
        print(f"\n## {title}\n\n{text}")


if __name__ == "__main__":
    main(run)
