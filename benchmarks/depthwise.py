"""Cost of depthwise convolutions of volumes, by XLA and on images, beside dense ones, per multiply-accumulate.

python benchmarks/depthwise.py
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

from side_by_side import conditions, record, table

from planar3d.cli import main

# Of DX-Net at 128³: slices, rows and columns; channels; kernel; stride.
LAYERS = {
    "block1a": (64, 32, 3, 1),
    "block2a": (64, 96, 3, 2),
    "block3b": (16, 240, 5, 1),
    "block5b": (8, 672, 5, 1),
}
DENSE = (32, 32, 3, 1)


def timed(make: Callable[[], Any], size: int, channels: int, kernel: int, stride: int, dtype: str) -> list[Any]:
    """Functions that compute a layer's output, and its gradients."""
    import keras
    import tensorflow as tf

    layer = make()
    layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16" if dtype == "bf16" else "float32")
    x = tf.cast(tf.random.stateless_normal((1, size, size, size, channels), seed=(0, 0)), layer.compute_dtype)
    layer(x)

    def gradients() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return tape.gradient(y, [x, layer.kernel.value])

    return [tf.function(lambda: layer(x)), tf.function(gradients)]


def run(repeats: int = 3, bf16: bool = False) -> None:
    """Measure the methods in turn, so that other load on the machine affects all of them."""
    import tensorflow as tf
    from keras import layers

    from planar3d.conversion.depthwise import computed_on_images

    def seconds(run: Any) -> float:
        start = time.perf_counter()
        tf.nest.map_structure(lambda y: y[..., 0].numpy(), run())
        return time.perf_counter() - start

    rows, dtype = [], "bf16" if bf16 else "float32"
    for name, (size, channels, kernel, stride) in LAYERS.items():

        def grouped(channels: int = channels, kernel: int = kernel, stride: int = stride) -> Any:
            return layers.Conv3D(channels, kernel, stride, "same", groups=channels, use_bias=False)

        ways = [
            *timed(lambda: layers.Conv3D(DENSE[1], DENSE[2], padding="same", use_bias=False), *DENSE, dtype),
            *timed(grouped, size, channels, kernel, stride, dtype),
            *timed(lambda: computed_on_images(grouped()), size, channels, kernel, stride, dtype),
        ]
        for run in ways:
            seconds(run)
        turns = [[seconds(run) for run in ways] for _ in range(repeats)]
        dense = DENSE[0] ** 3 * DENSE[1] ** 2 * DENSE[2] ** 3
        macs = (size // stride) ** 3 * channels * kernel**3
        for place, what in enumerate(("output", "output and gradients")):
            of_dense, xla, images = (statistics.median(turn[2 * way + place] for turn in turns) for way in range(3))
            rates = [f"{took / macs / (of_dense / dense):.0f}×" for took in (xla, images)]
            times = [f"{1000 * took:.0f} ms" for took in (xla, images)]
            rows.append(
                [f"{name}, {size}³×{channels}, {kernel}³/{stride}, {what}", *times, f"{xla / images:.1f}×", *rates]
            )
    headings = ["layer", "XLA", "on images", "ratio", "XLA ÷ dense a MAC", "on images ÷ dense a MAC"]
    text = f"{conditions(f'{dtype}, median of {repeats} turns')}\n\n{table(headings, rows)}"
    record(f"Depthwise convolutions of volumes, {dtype}", text)


if __name__ == "__main__":
    main(run)
