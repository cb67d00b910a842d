"""Augmentation of patches: transforms and constants of Wacker 2019, from batchgenerators' BraTS loader.

The constants are the library's of 2019; later versions have other elastic deformations. Here, each patch has its own
generator, by its number; the library uses generators shared by the process. Four more transforms act within slices or
on their contrast, as in Messaoudi 2023 on CHAOS, which does not give ranges; the ranges are this package's.
"""

import typing
from collections.abc import Callable, Collection
from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

Wacker2019 = Literal["elastic", "rotation", "zoom", "flip", "brightness", "gamma", "noise", "blur"]
Transform = Literal[Wacker2019, "turn", "shear", "translation", "window"]
TRANSFORMS: tuple[Transform, ...] = typing.get_args(Wacker2019)

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]

_WARPED = 0.1  # share of patches for each: elastic, rotation, zoom
_SCALE = 0.25  # largest standard deviation of a deformation's smoothing, relative to the patch's lengths
_ANGLE = np.deg2rad(15)  # around each axis, in either direction
_ZOOM = (0.75, 1.25)  # voxels of the volume per voxel of the patch
_SHEAR = 0.1  # rows per column and columns per row, in either direction
_TRANSLATION = 0.1  # of the patch's rows and columns, in either direction
_WINDOW = 0.7  # narrowest window, of the range of grey levels
_BRIGHTNESS = (0.7, 1.5)
_GAMMA = (0.5, 2.0)
_NOISE = 0.05  # largest standard deviation; the library calls it variance
_BLUR = (0.5, 1.5)  # standard deviation in voxels


def augment_patch(
    image: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    names: Collection[str] = TRANSFORMS,
    air: float = 0.0,
    share: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate other patients and scanners in a patch.

    Args:
        image: float32 (slices, rows, cols, channels), of mean 0 and standard deviation 1 within the head.
        labels: whole numbers (slices, rows, cols).
        names: the transforms to draw, applied in their own order.
        air: value outside the patch; labels are 0 there.
        share: of patches changed by each transform except mirroring; 0: shares of Wacker 2019.

    Source: Wacker 2019, section III.D, and its released `brats_data_loader.py`.
    """
    places = _places(labels.shape, names, rng, share)
    if places is not None:
        channels = [ndimage.map_coordinates(channel, places, cval=air) for channel in np.moveaxis(image, -1, 0)]
        image, labels = np.stack(channels, axis=-1), _labels_at(labels, places)
    if "flip" in names:
        axes = tuple(axis for axis in range(3) if rng.random() < 0.5)
        image, labels = np.flip(image, axes), np.flip(labels, axes)
    for name, usual, change in _GREY_LEVELS:
        if name in names and rng.random() < (share or usual):
            image = change(image, rng)
    return image, labels


def _places(
    shape: tuple[int, ...], names: Collection[str], rng: np.random.Generator, share: float = 0.0
) -> np.ndarray | None:
    """The source position of each voxel of a warped patch, (3, slices, rows, cols); None if nothing was drawn."""
    share = share or _WARPED
    drawn = [warp for name, warp in _WARPS.items() if name in names and rng.random() < share]
    moved = "translation" in names and rng.random() < share
    if not drawn and not moved:
        return None
    middle = (np.array(shape) - 1).reshape(3, 1, 1, 1) / 2
    places = np.indices(shape) - middle
    for warp in drawn:
        places = warp(places, rng)
    places = places - places.mean(axis=(1, 2, 3), keepdims=True) + middle
    if moved:
        places[1:] += (np.array(shape[1:]) * rng.uniform(-_TRANSLATION, _TRANSLATION, 2)).reshape(2, 1, 1, 1)
    places[np.equal(shape, 1)] = 0  # a patch of one slice has only air beside it
    return places


def _linear(matrix: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.einsum("ij,j...->i...", matrix, places)


def _sheared(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    matrix = np.eye(3)
    matrix[1, 2], matrix[2, 1] = rng.uniform(-_SHEAR, _SHEAR, 2)
    return _linear(matrix, places)


# In this order, around the patch's center. Turns and shears stay within slices.
_WARPS: dict[str, Change] = {
    "elastic": lambda places, rng: places + _deformation(places.shape[1:], rng),
    "rotation": lambda places, rng: _linear(_rotation(rng.uniform(-_ANGLE, _ANGLE, 3)), places),
    "zoom": lambda places, rng: places * _halves(*_ZOOM, rng),
    "turn": lambda places, rng: _linear(_rotation([rng.uniform(-_ANGLE, _ANGLE), 0, 0]), places),
    "shear": _sheared,
}


def _deformation(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Smoothed noise; its largest displacement along an axis is about half the smoothing's standard deviation."""
    deviations = rng.uniform(0, _SCALE) * np.array(shape)
    fields = []
    for deviation in deviations:
        farthest = np.clip(rng.normal(deviation / 2, deviation / 4), 0, 0.75 * deviation)
        smooth = ndimage.gaussian_filter(rng.uniform(-1, 1, shape), deviations, mode="constant")
        fields.append(smooth * (farthest / np.abs(smooth).max()))
    return np.stack(fields)


def _rotation(angles: np.ndarray | list[float]) -> np.ndarray:
    """Rotations around the slice, row and column axis, in this order."""
    return Rotation.from_euler("xyz", np.multiply(angles, (1, -1, 1))).as_matrix()


def _labels_at(labels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """At each position, the label with the largest share, by linear interpolation of each label."""
    warped, most = np.zeros_like(labels), np.full(labels.shape, -1, np.float32)
    for label in np.union1d(0, labels):  # first 0, which so is the label outside, where every share is 0
        share = ndimage.map_coordinates((labels == label).astype(np.float32), places, order=1)
        larger = share > most
        warped[larger], most[larger] = label, share[larger]
    return warped


def _halves(least: float, most: float, rng: np.random.Generator) -> float:
    """A factor below 1 as often as above."""
    return rng.uniform(least, 1) if rng.random() < 0.5 else rng.uniform(1, most)


def _gamma(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clipped to the lowest and highest value of each channel."""
    exponents = np.array([_halves(*_GAMMA, rng) for _ in range(image.shape[-1])], np.float32)
    least = image.min(axis=(0, 1, 2))
    span = np.maximum(image.max(axis=(0, 1, 2)) - least, np.float32(1e-7))
    return ((image - least) / span) ** exponents * span + least


def _window(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of each channel's range is stretched to the whole range; values beyond are clipped."""
    least, most = image.min(axis=(0, 1, 2)), image.max(axis=(0, 1, 2))
    width = rng.uniform(_WINDOW, 1, image.shape[-1:]).astype(np.float32)
    low = least + (most - least) * (1 - width) * rng.random(image.shape[-1:], np.float32)
    return np.clip((image - low) / width + least, least, most)


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur of half of the channels, each with its own standard deviation."""
    image = image.copy()
    for channel in np.flatnonzero(rng.random(image.shape[-1]) < 0.5):
        image[..., channel] = ndimage.gaussian_filter(image[..., channel], rng.uniform(*_BLUR))
    return image


# Share of the patches changed by each, in this order.
_GREY_LEVELS: tuple[tuple[str, float, Change], ...] = (
    ("window", 0.15, _window),
    ("brightness", 0.15, lambda image, rng: image * rng.uniform(*_BRIGHTNESS, image.shape[-1:]).astype(np.float32)),
    ("gamma", 0.15, _gamma),
    ("gamma", 0.15, lambda image, rng: -_gamma(-image, rng)),
    ("noise", 0.15, lambda image, rng: image + rng.normal(0, rng.uniform(0, _NOISE), image.shape).astype(np.float32)),
    ("blur", 0.15, _blur),
)
