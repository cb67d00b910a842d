"""ResNet-18, -34 and -50 in 2D, equivalent to torchvision's, so that torch weights give the same results.

keras.applications has only ResNet-50, in another version: its bottleneck strides in the first 1×1 convolution (in
torchvision in the 3×3 convolution, known as v1.5), its convolutions have biases, and epsilon differs.
"""

from typing import Any

import keras
import numpy as np
from keras import layers

from planar3d.networks.architecture import image_input
from planar3d.sections import check_choice, whole

# torch's defaults of batch normalization; its momentum is the share of the new value, Keras' of the old.
NORMALIZATION = {"epsilon": 1e-5, "momentum": 0.9}
ImageShape = tuple[int | None, int | None, int]
# A block's convolutions (He et al. 2016, figure 5): kernel, factor of the filters, and whether it has the stride.
Block = tuple[tuple[int, int, bool], ...]
_BASIC: Block = (3, 1, True), (3, 1, False)
_BOTTLENECK: Block = (1, 1, False), (3, 1, True), (1, 4, False)


def ResNet18(input_shape: ImageShape = (224, 224, 3), include_top: bool = True, classes: int = 1000) -> keras.Model:
    """ResNet-18 with random weights; arguments, result and source as for `ResNet50`."""
    return _resnet("resnet18", _BASIC, (2, 2, 2, 2), input_shape, include_top, classes)


def ResNet34(
    input_shape: ImageShape = (224, 224, 3), include_top: bool = True, classes: int = 1000, pool: int = 3
) -> keras.Model:
    """ResNet-34 with random weights; arguments, result and source as for `ResNet50`.

    With `pool=2` it pools 2×2 pixels without padding, as in AlbuNet (Wacker et al. 2019).
    """
    return _resnet("resnet34", _BASIC, (3, 4, 6, 3), input_shape, include_top, classes, pool)


def ResNet50(input_shape: ImageShape = (224, 224, 3), include_top: bool = True, classes: int = 1000) -> keras.Model:
    """ResNet-50 (v1.5, as in torchvision) with random weights; `load_torch` loads torch's files.

    Layers have the names that keras.applications gives its ResNet-50: `conv1_conv`, `conv2_block1_1_conv`, ….

    Args:
        input_shape: (rows, cols, channels); rows and cols may be None.
        include_top, classes: whether pooling and the dense layer `predictions` follow, and its outputs.

    Returns:
        A model from (batch, rows, cols, channels), (x / 255 - mean) / std of ImageNet's RGB, to logits
        (batch, classes), or without top to features (batch, rows / 32, cols / 32, 2048; 512 for ResNet-18 and -34).

    Raises:
        ValueError: the shape is not (rows, cols, channels), or there are no classes.

    Source: He et al. 2016, table 1; strides and padding as in torchvision.
    """
    return _resnet("resnet50", _BOTTLENECK, (3, 4, 6, 3), input_shape, include_top, classes)


def with_random_biases(network: keras.Model) -> keras.Model:
    """A copy of a 2D network whose convolutions have biases, initialized as in torch.

    Uniform within ±1 / √n of the n inputs of a convolution.
    """

    def biased(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, layers.Conv2D):
            bound = float(np.prod(layer.kernel.shape[:-1])) ** -0.5
            config |= {"use_bias": True, "bias_initializer": keras.initializers.RandomUniform(-bound, bound)}
        return type(layer).from_config(config)

    copy = keras.models.clone_model(network, clone_function=biased)
    for made, layer in zip(copy.layers, network.layers, strict=True):
        for new, old in zip(made.weights, layer.weights, strict=False):  # a bias is the last of them
            new.assign(old)
    return copy


def _resnet(
    name: str,
    block: Block,
    blocks: tuple[int, ...],
    input_shape: ImageShape,
    include_top: bool,
    classes: int,
    pool: int = 3,
) -> keras.Model:
    inputs = image_input(input_shape)
    check_choice("pool", pool, (2, 3), ValueError)
    x = layers.Activation("relu", name="conv1_relu")(_convolved(inputs, 64, 7, 2, "conv1"))
    if pool == 3:
        # Zero padding equals torch's minus infinity after an activation, which is never negative.
        x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(pool, strides=2, name="pool1_pool")(x)
    for stage, count in enumerate(blocks):
        for i in range(count):
            x = _residual(x, block, 64 * 2**stage, 2 if stage and not i else 1, f"conv{stage + 2}_block{i + 1}")
    if include_top:
        x = logits(x, classes)
    return keras.Model(inputs, x, name=name)


def logits(x: Any, classes: int) -> Any:
    """The logits (batch, classes) of features (batch, rows, cols, channels), by pooling and a dense layer."""
    whole("classes", classes, 1, ValueError)
    return layers.Dense(classes, name="predictions")(layers.GlobalAveragePooling2D(name="avg_pool")(x))


def _residual(x: Any, block: Block, filters: int, stride: int, name: str) -> Any:
    """Convolutions with ReLU between, added to their input."""
    y = x
    for number, (kernel, factor, strided) in enumerate(block, start=1):
        if number > 1:
            y = layers.Activation("relu", name=f"{name}_{number - 1}_relu")(y)
        y = _convolved(y, factor * filters, kernel, stride if strided else 1, f"{name}_{number}")
    if x.shape[-1] != y.shape[-1] or stride > 1:
        x = _convolved(x, y.shape[-1], 1, stride, f"{name}_0")
    return layers.Activation("relu", name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))


def _convolved(x: Any, filters: int, kernel: int, stride: int, name: str) -> Any:
    """A convolution without bias, normalized, with torch's symmetric padding for every stride."""
    if stride > 1 and kernel > 1:
        # TensorFlow's 'same' would pad even sizes only at the end.
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    padding = "valid" if stride > 1 else "same"
    x = layers.Conv2D(filters, kernel, stride, padding, use_bias=False, name=f"{name}_conv")(x)
    return layers.BatchNormalization(**NORMALIZATION, name=f"{name}_bn")(x)
