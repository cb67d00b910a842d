"""Of random networks, shared inference takes for each slice what the network takes of its window, and nothing else.

A value stands for all that it was computed from: it is a number mixed from its inputs, their taps and their channels.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from planar3d.graph.description import Description, Layer
from planar3d.graph.layers import shape_of
from planar3d.inference.plan import make_plan
from planar3d.inference.shared import SharedInference
from planar3d.scans.windows import compose, cut_windows

BELOW = 2**24  # whole numbers that float32 has


def mixed(layer, *numbers) -> int:
    return hash((int(layer.name), *numbers)) % BELOW


def taps(layer, entry: int, length: int):
    """Pairs of a tap and the entry of the input that it is applied to, without zeros."""
    size = (getattr(layer, "kernel_size", None) or layer.pool_size)[0]
    (stride, *_), (rate, *_) = layer.strides, getattr(layer, "dilation_rate", (1,))
    same = layer.padding == "same"
    if layer.kind == "Conv3DTranspose":
        before = max(size - stride, 0) // 2 if same else 0
        places = [(tap, (entry + before - tap) / stride) for tap in range(size)]
    else:
        needed = (-(-length // stride) - 1) * stride + (size - 1) * rate + 1
        before = max(needed - length, 0) // 2 if same else 0
        places = [(tap, entry * stride - before + tap * rate) for tap in range(size)]
    return [(tap, int(place)) for tap, place in places if place == int(place) and 0 <= place < length]


def summed(layer, entry: int, source, length: int, first: int = 0):
    """The sum of a convolution over its taps and the channels from `first`, before bias and activation."""
    products = [
        [mixed(layer, tap, first + c, f, v) for f in range(layer.filters)]
        for tap, place in taps(layer, entry, length)
        for c, v in enumerate(source[place])
    ]
    return np.sum(products, axis=0, dtype=np.int64) if products else np.zeros(layer.filters, np.int64)


def biases(layer):
    return np.array([mixed(layer, f) for f in range(layer.filters)])


def ended(layer, values):
    """What follows a sum: an activation."""
    return np.array([mixed(layer, value) for value in values])


def value(layer, entry: int, sources, lengths):
    """The channels of a layer's entry, from entries of its inputs of these lengths."""
    if layer.kind.startswith("Conv"):
        return ended(layer, summed(layer, entry, sources[0], lengths[0]) + biases(layer) * layer.use_bias)
    if layer.kind == "GlobalAveragePooling3D":
        places = [(0, place) for place in range(lengths[0])]
    elif layer.kind == "UpSampling3D":
        places = [(0, entry // layer.size[0])]
    elif hasattr(layer, "pool_size"):
        places = taps(layer, entry, lengths[0])
    else:  # of several inputs; of one entry, it is the same for all
        taken = [source[min(entry, length - 1)] for source, length in zip(sources, lengths, strict=True)]
        joined = layer.kind == "Concatenate"
        return np.concatenate(taken) if joined else np.array([mixed(layer, *v) for v in zip(*taken, strict=True)])
    return ended(layer, np.sum([[mixed(layer, tap, v) for v in sources[0][place]] for tap, place in places], axis=0))


def value_of(node, entry: int, sources):
    """The same of a node of the plan, which may be a part of a convolution."""
    layer, lengths = node.layer, [source.length for source in node.inputs]
    if node.role == "sum":
        return ended(layer, sum(source[entry] for source in sources))
    if node.role == "shift":
        places = dict(taps(layer, entry, lengths[0]))
        tap = node.inputs[0].tap
        return sources[0][places[tap]] if tap in places else np.zeros(layer.filters, np.int64)
    if node.role == "part" and node.tap is not None:
        here = enumerate(sources[0][entry], start=node.channels[0])
        terms = [[mixed(layer, node.tap, c, f, v) for f in range(layer.filters)] for c, v in here]
        return np.sum(terms, axis=0) + biases(layer) * node.biased
    if node.role == "part":
        return summed(layer, entry, sources[0], lengths[0], node.channels[0]) + biases(layer) * node.biased
    return value(layer, entry, sources, lengths)


class Read(dict):
    """The computed entries of a node; those that were read are noted."""

    def __init__(self, entries=()) -> None:
        super().__init__(entries)
        self.used: set[int] = set()

    def between(self, first: int, end: int) -> "Read":
        """Entries of a stretch, noted with these."""
        stretch = Read((entry, self.get(entry)) for entry in range(first, end))
        stretch.used = self.used
        return stretch

    def __getitem__(self, entry: int):
        self.used.add(entry)
        return super().__getitem__(entry)


class Numbers:
    """An engine that computes such values."""

    dtype = np.dtype("int64")

    def program(self, piece, shapes):
        return Program(piece)


class Program:
    def __init__(self, piece) -> None:
        self.piece, self.ends = piece, [piece.holding(node) for node in piece.outputs]
        self.output_shapes = [
            (end - first, 1, 1, node.shape[-1]) for node, (first, end) in zip(piece.outputs, self.ends, strict=True)
        ]

    def free(self) -> None:
        pass

    def __call__(self, inputs, outputs) -> None:
        piece, known = self.piece, {}
        for (node, ends), stretch in zip(piece.inputs, inputs, strict=True):
            known[node, ends] = Read(zip(range(*ends), stretch[:, 0, 0], strict=True))
        for node, ends in piece.nodes.items():
            sources = []
            for source in node.inputs:
                first, end = needs = node.reach.needs(*ends, source.length)
                sources.append(known[source, piece.holding(source, needs)].between(first, end))
            known[node, ends] = Read((entry, value_of(node, entry, sources)) for entry in range(*ends))
        for node, ends, place in zip(piece.outputs, self.ends, outputs, strict=True):
            place[:, 0, 0] = [known[node, ends][entry] for entry in range(*ends)]
        leaving = {
            node for node in piece.nodes if node.reach.whole or getattr(node.layer, "dilation_rate", (1,))[0] > 2
        }
        passed = leaving | {source for node in leaving for source in node.inputs}  # of these, not all ends are read
        for (node, _), entries in known.items():
            if entries and not (piece.features or node in passed):
                assert {min(entries), max(entries)} <= entries.used, node.name


def random_network(rng, depth: int) -> Description:
    layers: list[Layer] = []
    shapes = [(None, depth, 1, 1, 1)]

    def add(kind: str, inputs, **settings) -> int:
        layer = Layer(kind, str(len(layers)), tuple(inputs), settings=settings)
        shape = shape_of(layer, *(shapes[number] for number in inputs))
        layers.append(Layer(kind, layer.name, layer.inputs, shape, settings))
        shapes.append(shape)
        return len(layers)

    def convolved(
        x: int, size: int, stride: int = 1, rate: int = 1, kind: str = "Conv3D", padding: str = "same", filters: int = 0
    ) -> int:
        kernel, strides, rates = (size, 1, 1), (stride, 1, 1), (rate, 1, 1)
        about = {
            "use_bias": bool(rng.integers(4)),
            "filters": filters or int(rng.integers(1, 3)),
            "groups": 1,
            "output_padding": None,
        }
        return add(kind, [x], kernel_size=kernel, strides=strides, padding=padding, dilation_rate=rates, **about)

    last = convolved(0, 1)
    for _ in range(rng.integers(3, 8)):
        x = last if rng.random() < 0.6 else int(rng.integers(1, len(shapes)))
        length, padding = shapes[x][1], str(rng.choice(["same", "valid"]))
        size, stride = (int(number) for number in rng.integers(1, 4, 2))
        match rng.integers(7):
            case 0 | 1:
                last = convolved(x, size, rate=int(rng.choice([1, 2, depth])))
            case 2 if length >= size:
                last = convolved(x, size, stride, padding=padding)
            case 3 if length >= size:
                pool = {"pool_size": (size, 1, 1), "strides": (int(rng.choice([size, stride])), 1, 1)}
                last = add("MaxPooling3D", [x], padding=padding, **pool)
            case 4 if length * stride <= depth:
                last = convolved(x, size, stride, kind="Conv3DTranspose", padding=padding)
            case 5:
                mean = add("GlobalAveragePooling3D", [x], keepdims=True)
                last = add("Multiply", [x, mean])
            case 6:
                last = add("Concatenate", [n for n, s in enumerate(shapes) if s[1] == length], axis=-1)
    whole = []
    for number, (_, length, *_) in enumerate(list(shapes)):
        if length == depth:
            whole.append(number)
        elif length and depth % length == 0 and length > 1:
            times = depth // length
            whole.append(
                add("UpSampling3D", [number], size=(times, 1, 1))
                if rng.integers(2)
                else convolved(number, times, times, kind="Conv3DTranspose", padding="valid")
            )
    rng.shuffle(whole)
    x = add("Concatenate", [add("Concatenate", whole[:3], axis=-1), *whole[3:]], axis=-1)
    output = convolved(x, int(rng.integers(2, 4)), rate=int(rng.choice([1, 2, depth])), filters=1)
    return Description("random", (shapes[0],), tuple(layers), (output,))


def windowed(network: Description, window):
    """The output of a window (depth, channels), layer by layer."""

    def visit(layer, taken):
        lengths = [len(source) for source in taken]
        return [value(layer, entry, taken, lengths) for entry in range(layer.shape[1])]

    return np.array(network.follow([window], visit)[network.outputs[0]], np.float32)


@pytest.mark.parametrize("exact", [True, False])
def test_a_slice_is_computed_from_what_its_window_computes_it_from(exact: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        depth = int(rng.choice([6, 8, 12]))
        stride = int(rng.choice(np.arange(2, depth + 1, 2)))
        network = random_network(rng, depth)
        scan = rng.integers(0, BELOW, (depth + int(rng.integers(3 * depth)), 1, 1, 1))
        windows = np.stack([windowed(network, window[:, 0, 0]) for window in cut_windows(scan, depth, stride)])
        preparation = SimpleNamespace(as_input=lambda voxels: voxels, channels=1, brightest=0.0)
        predict = SharedInference(make_plan(network, stride, exact), Numbers(), preparation)
        np.testing.assert_array_equal(predict(scan)[:, 0, 0], compose(windows, stride, len(scan))[..., 0])
