"""Augmentation of patches: the transforms and constants of Wacker 2019, whose loader is batchgenerators' for BraTS.

The constants are the library's of 2019: its later versions draw other elastic deformations. Here a patch is drawn from
one generator, by its number; the library draws from those that the whole process shares. Four more stay within slices
or change their contrast, as Messaoudi 2023 has them on CHAOS without saying how far; the ranges are this package's.
"""

import typing
from collections.abc import Callable, Collection
from typing import Literal

import numpy as np
from scipy import ndimage

Wacker2019 = Literal["elastic", "rotation", "zoom", "flip", "brightness", "gamma", "noise", "blur"]
Transform = Literal[Wacker2019, "turn", "shear", "translation", "window"]
TRANSFORMS: tuple[Transform, ...] = typing.get_args(Wacker2019)

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]

_WARPED = 0.1  # share of the patches of each: elastic, rotation, zoom
_SCALE = 0.25  # largest standard deviation that smooths a deformation, of the patch's lengths
_ANGLE = np.deg2rad(15)  # about each axis, to either side
_ZOOM = (0.75, 1.25)  # voxels of the volume by voxel of the patch
_SHEAR = 0.1  # rows by column and columns by row, to either side
_TRANSLATION = 0.1  # of the patch's rows and columns, to either side
_WINDOW = 0.7  # narrowest, of the span of grey levels
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
    """Change a patch as another patient and scanner might.

    Args:
        image: float32 (slices, rows, cols, channels), of mean 0 and deviation 1 within the head.
        labels: whole numbers (slices, rows, cols).
        names: of the transforms that are drawn, in their own order.
        air: what fills in from outside of the patch; labels are 0 there.
        share: of the patches that each transform changes, but mirroring; 0: shares of Wacker 2019.

    Source: Wacker 2019, section II.D, and its released `brats_data_loader.py`.
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
    """Where each voxel of a warped patch lies in the patch, (3, slices, rows, cols); None where nothing was drawn."""
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
    return places


def _linear(matrix: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.einsum("ij,j...->i...", matrix, places)


def _sheared(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    matrix = np.eye(3)
    matrix[1, 2], matrix[2, 1] = rng.uniform(-_SHEAR, _SHEAR, 2)
    return _linear(matrix, places)


# In this order, about the patch's middle. Turns and shears stay within slices, of which a patch may have one alone.
_WARPS: dict[str, Change] = {
    "elastic": lambda places, rng: places + _deformation(places.shape[1:], rng),
    "rotation": lambda places, rng: _linear(_rotation(rng.uniform(-_ANGLE, _ANGLE, 3)), places),
    "zoom": lambda places, rng: places * _halves(*_ZOOM, rng),
    "turn": lambda places, rng: _linear(_rotation(np.array([rng.uniform(-_ANGLE, _ANGLE), 0, 0])), places),
    "shear": _sheared,
}


def _deformation(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Smoothed noise, whose largest displacement along an axis is about half of the smoothing's deviation there."""
    deviations = rng.uniform(0, _SCALE) * np.array(shape)
    fields = []
    for deviation in deviations:
        farthest = np.clip(rng.normal(deviation / 2, deviation / 4), 0, 0.75 * deviation)
        noise = np.fft.fftn(rng.uniform(-1, 1, shape))
        smooth = np.fft.ifftn(ndimage.fourier_gaussian(noise, deviations)).real
        fields.append(smooth * (farthest / np.abs(smooth).max()))
    return np.stack(fields)


def _rotation(angles: np.ndarray) -> np.ndarray:
    """About the slice, row and column axis, one after the other."""
    total = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        turned = np.ix_(*[[other for other in range(3) if other != axis]] * 2)
        turn[turned] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        total = turn @ total
    return total


def _labels_at(labels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """At each place the label that has the largest share of it, linearly; each is interpolated by itself."""
    warped, most = np.zeros_like(labels), np.full(labels.shape, -1, np.float32)
    for label in np.union1d(0, labels):
        # Outside there is no label: that is 0.
        outside = float(label == 0)
        share = ndimage.map_coordinates((labels == label).astype(np.float32), places, order=1, cval=outside)
        larger = share > most
        warped[larger], most[larger] = label, share[larger]
    return warped


def _halves(least: float, most: float, rng: np.random.Generator) -> float:
    """Below 1 as often as above."""
    return rng.uniform(least, 1) if rng.random() < 0.5 else rng.uniform(1, most)


def _brightness(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    least, most = _BRIGHTNESS
    return image * rng.uniform(least, most, image.shape[-1:]).astype(np.float32)


def _gamma(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Between the lowest and the highest value of each channel."""
    exponents = np.array([_halves(*_GAMMA, rng) for _ in range(image.shape[-1])], np.float32)
    least = image.min(axis=(0, 1, 2))
    span = np.maximum(image.max(axis=(0, 1, 2)) - least, np.float32(1e-7))
    return ((image - least) / span) ** exponents * span + least


def _inverted_gamma(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return -_gamma(-image, rng)


def _window(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of each channel's span fills all of it; what is below or above is cut."""
    least, most = image.min(axis=(0, 1, 2)), image.max(axis=(0, 1, 2))
    width = rng.uniform(_WINDOW, 1, image.shape[-1:]).astype(np.float32)
    low = least + (most - least) * (1 - width) * rng.random(image.shape[-1:], np.float32)
    return np.clip((image - low) / width + least, least, most)


def _noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image + rng.normal(0, rng.uniform(0, _NOISE), image.shape).astype(np.float32)


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the channels, each by its own deviation."""
    image = image.copy()
    for channel in np.flatnonzero(rng.random(image.shape[-1]) < 0.5):
        image[..., channel] = ndimage.gaussian_filter(image[..., channel], rng.uniform(*_BLUR))
    return image


# Share of the patches that each changes, in this order.
_GREY_LEVELS: tuple[tuple[str, float, Change], ...] = (
    ("window", 0.15, _window),
    ("brightness", 0.15, _brightness),
    ("gamma", 0.15, _gamma),
    ("gamma", 0.15, _inverted_gamma),
    ("noise", 0.15, _noise),
    ("blur", 0.15, _blur),
)
