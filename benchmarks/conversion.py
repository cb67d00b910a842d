"""Time and memory of converting networks of keras.applications to 3D.

python benchmarks/conversion.py
"""

import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from side_by_side import conditions, measure, record, table

from planar3d.cli import main

NETWORKS = "VGG16,ResNet50,DenseNet121,EfficientNetB0,NASNetMobile,EfficientNetB7"


def converted(name: str, mapping: str) -> Callable[[], Any]:
    """Build an application; the returned call converts it: parameters, layers, and the seconds of building."""
    import keras

    from planar3d.conversion.convert import convert

    start = time.perf_counter()
    flat = getattr(keras.applications, name)(weights=None, include_top=False)
    built = time.perf_counter() - start

    def call() -> tuple[int, int, float]:
        volumes = convert(flat, mapping)
        return volumes.count_params(), len(volumes.layers), built

    return call


def run(
    networks: Annotated[str, typer.Option(help="Functions of keras.applications, separated by commas.")] = NETWORKS,
    mapping: str = "planar",
) -> None:
    """Measure each network in a separate process."""
    rows = []
    for name in networks.split(","):
        measured = measure(converted, name, mapping)
        parameters, layers, built = measured.value
        seconds = f"{measured.seconds:.1f} s"
        rows.append(
            [name, f"{layers}", f"{parameters / 1e6:.1f} M", f"{built:.1f} s", seconds, f"{measured.peak_gib:.1f} GiB"]
        )
    headings = ["network", "layers in 3D", "parameters", "2D network built", "converted"]
    headings += ["peak memory, imports included"]
    record("Conversion of 2D networks", f"Mapping {mapping}. {conditions()}\n\n{table(headings, rows)}")


if __name__ == "__main__":
    main(run)
