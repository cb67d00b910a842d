"""The steps of one training, on torch, and its predictions of the test scans.

Steps are those of the recipe `modern`, but the rate follows the clock instead of a number of steps, and the exponential
average of the weights is kept.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from heads import Times, with_slabs, write_array
from packed import PUBLISHED, imagenet_start
from variants import Crops, Variant, shares_of

from planar3d.files import write_json
from planar3d.recipes import MODERN, Recipe
from planar3d.scans.preparation.prepared import load_prepared
from planar3d.scans.windows import INPUT_SCALE

WARM_UP, AVERAGED = 0.03, 0.99  # share of the time; decay of the mean weights per step
SAVE_EVERY, TELL_EVERY = 120, 20  # seconds
KEPT, KEPT_PARTS = "all", 3  # the variant whose weights are kept, and the number of files
_PLAIN = tuple(name for name in MODERN.training.samples.augmentation if name != "extraction")  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Settings:
    """Common settings of all trainings."""

    data: Path
    folder: Path
    out: Path
    times: Times
    synthetic: float = 0.4  # share of the crops
    batch: int = 4
    crop: int = 128
    precision: str = "bf16"
    workers: int = 1
    seed: int = 0
    tuned: bool = True  # whether to search for the fastest algorithm of a convolution


def train(variant: Variant, settings: Settings) -> None:
    """Train a variant until its time is over, save its weights if it is to be published, and predict all tests."""
    import torch

    torch.backends.cudnn.benchmark = settings.tuned
    recipe = MODERN.changed(
        seed=settings.seed, batch_size=settings.batch, crop=settings.crop, augmentation=_PLAIN
    ).changed(precision=settings.precision)
    crops = Crops(settings.folder, shares_of(variant, settings.synthetic), recipe, settings.batch)
    network = _begun(variant, settings, recipe, crops)
    if variant.trains:
        # Its workers are forked, and never use the GPU.
        loader = torch.utils.data.DataLoader(
            crops,  # type: ignore[arg-type]
            batch_size=None,
            sampler=range(1, 10**7),
            num_workers=settings.workers,
            prefetch_factor=8 if settings.workers else None,
        )
        steps(variant, settings, recipe, network, loader)
    else:
        time.sleep(max(0.0, (settings.times.pool + settings.times.training) / 2 - time.time()))  # for test scans
    torch.cuda.empty_cache()  # frees the memory of training for predictions
    twin = _for_scans(network, recipe)
    if variant.name == KEPT:
        keep(twin, settings.out)
    predict_tests(variant, settings, twin, recipe)


def _begun(variant: Variant, settings: Settings, recipe: Recipe, crops: Crops) -> Any:
    """The initial network of a variant, for crops."""
    from planar3d.training.initialization import initial_network, layers_named, scale_to_unit_variance
    from planar3d.transfer.transplant import load_weights, transplant

    network = initial_network(recipe.changed(encoder_weights="none"))
    if variant.start == "published":
        load_weights(network, PUBLISHED, strict=True)
    else:
        transplant(network, imagenet_start(settings.data / "imagenet.xz"))
        voxels, _ = crops[0]
        inputs = recipe.preparation.as_input(voxels[: MODERN.training.batch_size, ..., None])
        scale_to_unit_variance(network, layers_named(network, recipe, "unit_variance"), inputs)
    return network


def steps(variant: Variant, settings: Settings, recipe: Recipe, network: Any, loader: Any) -> None:
    """Train the network on the loader's batches, and set its averaged weights."""
    import torch

    parameters = [variable.value for variable in network.trainable_variables]
    optimizer = torch.optim.Adam(parameters, lr=variant.rate, eps=recipe.training.optimizer.epsilon)
    averaged = [parameter.detach().clone() for parameter in parameters]
    device, history, told, saved = parameters[0].device, [], time.time(), time.time()
    began, losses = 0.0, []
    for step, (voxels, masks) in enumerate(loader):
        began = began or time.time()  # the first batch may wait for heads
        done = (time.time() - began) / max(settings.times.training - began, 1e-3)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate_at(done, variant.rate)
        inputs = voxels.to(device).div(INPUT_SCALE).sub(1)[..., None]
        found = network(inputs.expand(*inputs.shape[:-1], recipe.preparation.channels), training=True)  # type: ignore[attr-defined]
        loss = recipe.training.loss(masks.to(device)[..., None], found)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.training.optimizer.clip_norm)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, parameters, 1 - min(AVERAGED, (1 + step) / (10 + step)))
        losses.append(loss.detach())
        if time.time() - told > TELL_EVERY:
            mean = float(torch.stack(losses).mean())
            memory = torch.cuda.max_memory_reserved() / 2**30 if device.type == "cuda" else 0.0
            speed = len(losses) / (time.time() - told)
            told, losses = time.time(), []
            history.append({"step": step + 1, "loss": mean, "steps_per_second": speed, "GiB": memory})
            write_json(settings.folder / "history" / f"{variant.name}.json", history)
            print(
                f"{variant.name}: step {step + 1}  loss {mean:.4f}  {speed:.2f} a second  {memory:.1f} GiB", flush=True
            )
        if variant.name == KEPT and time.time() - saved > SAVE_EVERY:
            saved = time.time()
            keep(network, settings.out, dict(zip(map(id, parameters), averaged, strict=True)))
    with torch.no_grad():
        torch._foreach_copy_(parameters, averaged)


def rate_at(done: float, highest: float, lowest: float = 1e-5) -> float:
    """The learning rate after this share of the time: a short warm-up, then half a cosine."""
    falling = lowest + (highest - lowest) * (1 + math.cos(math.pi * done)) / 2
    return falling * min(1.0, (done + 1e-3) / WARM_UP)


def _for_scans(network: Any, recipe: Recipe) -> Any:
    """The same network, for whole slices."""
    from planar3d.networks.registry import recipe_network
    from planar3d.training.precision import built_with

    twin = built_with(recipe.training.precision, lambda: recipe_network(recipe))
    twin.set_weights(network.get_weights())
    return twin


def predict_tests(variant: Variant, settings: Settings, network: Any, recipe: Recipe) -> None:
    """Write the probabilities of all test scans of a variant, for scoring by other processes."""
    from planar3d.inference.predictor import predictor
    from planar3d.inference.prepared_scan import predict_prepared

    predict = predictor(network, recipe, method="windowed", engine="keras", batch_size=2)
    for place in sorted((settings.folder / "tested").glob("*/*/geometry.json")):
        source, scan = place.parent.parent.name, place.parent.name
        if variant.tested(source) and time.time() < settings.times.end:
            prepared, _ = load_prepared(place.parent)
            found = predict_prepared(predict, prepared, with_slabs(float(scan.split("@")[1]), recipe))
            name = f"{variant.name}--{source}--{scan}--{variant.seen(source)}.npy"
            write_array(settings.folder / "found" / name, found.astype(np.float16))


def keep(network: Any, out: Path, averaged: Mapping[int, Any] | None = None) -> None:
    """Write the trained parameters of a network in float16, in files of less than 16 MiB.

    Args:
        network: the network.
        out: the folder of the files.
        averaged: values that replace some of its parameters, by `id`.
    """
    import keras

    from planar3d.transfer.weight_places import places_of

    arrays = {}
    for place in places_of(network):
        if not place.weight.name.startswith(("block1", "block2")):
            value = (averaged or {}).get(id(place.variable.value), place.variable.value)
            arrays[place.weight.name] = keras.ops.convert_to_numpy(value).astype(np.float16)
    order = sorted(arrays, key=lambda name: -arrays[name].size)
    parts: list[dict[str, np.ndarray]] = [{} for _ in range(KEPT_PARTS)]
    for name in order:
        min(parts, key=_bytes)[name] = arrays[name]
    out.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts):
        with (out / f"{KEPT}-{number}.npz").open("wb") as file:
            np.savez(file, **part)  # type: ignore[arg-type]


def _bytes(part: Mapping[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in part.values())
