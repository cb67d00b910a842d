"""Exact shared inference: what windows share is computed once, and of the rest only what the kept slices need."""

import math
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Protocol

import numpy as np

from planar3d.graph.depth_graph import Node
from planar3d.inference.plan import Piece, Plan, StretchShape, per_entry
from planar3d.progress import Progress
from planar3d.scans.preparation import Preparation
from planar3d.scans.windows import at_least, checked_prepared, window_starts

ALIGNMENT = 64  # bytes, of memory that TensorFlow reads in place
_KEPT = 8  # plane sizes with cached programs; the heads of a cohort have few


class Program(Protocol):
    """A compiled piece, called with stretches of its inputs and arrays for its outputs."""

    output_shapes: list[StretchShape]

    def __call__(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Compute stretches (entries, rows, cols, channels) from stretches, into the given arrays."""

    def free(self) -> None:
        """Free the memory of intermediate results; the next call takes it again."""


class Engine(Protocol):
    """Computes pieces of a plan, with its own type of features."""

    dtype: Any

    def program(self, piece: Piece, shapes: Sequence[StretchShape]) -> Program:
        """Build the program of a piece for inputs of these shapes (entries, rows, cols, channels)."""


class SharedInference:
    """Predicts scans by a plan, with an engine, one at a time; programs built for the first scan are reused.

    Args:
        preparation: of the scans; it defines the network's input.
        description: method, engine and precision, in a few words.
    """

    def __init__(self, plan: Plan, engine: Engine, preparation: Preparation, description: str = "shared") -> None:
        self.plan, self.engine, self.preparation = plan, engine, preparation
        self.description = description
        self._alone = Lock()  # programs have one place for their results
        self._programs: dict[tuple[int, ...], dict[Any, Program]] = {}  # by planes, most recently used last
        # Of the rings, kept from scan to scan: the system clears new memory, which took 8 % of a cohort's time.
        self._memory: dict[Node, np.ndarray] = {}

    def __call__(self, voxels: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Predict a prepared scan, see `Predictor` (Kolarik 2020, section 3.2 and eq. 1)."""
        voxels, own = at_least(checked_prepared(voxels, self.preparation.brightest), self.plan.depth)
        starts = window_starts(len(voxels), self.plan.depth, self.plan.stride)
        pieces = dict(zip(starts, self.plan.pieces(len(starts)), strict=True))
        with self._alone:
            return self._computed(voxels, pieces, progress)[own]

    def middle(self, window: np.ndarray) -> np.ndarray:
        """The slices (stride, rows, cols) kept of a middle window (depth, rows, cols, images)."""
        with self._alone:
            return self._computed(window, {0: self.plan.windows["middle"]})

    def release(self) -> None:
        """Free the programs and their memory; the next scan builds them again."""
        self._programs.clear()
        self._memory.clear()

    def _computed(
        self, voxels: np.ndarray, windows: Mapping[int, Piece], progress: Progress | None = None
    ) -> np.ndarray:
        """The outputs of the windows' pieces in order, from the windows' first slices."""
        plan, as_input, planes = self.plan, self.preparation.as_input, voxels.shape[1:3]
        programs = self._programs[planes] = self._programs.pop(planes, {})
        while len(self._programs) > _KEPT:
            del self._programs[next(iter(self._programs))]
        for size in self._programs.keys() - {planes}:
            for program in self._programs[size].values():
                program.free()

        def program_for(piece: Piece, shapes: Sequence[Any]) -> Program:
            key = (id(piece), *shapes)
            if key not in programs:
                for other in programs.values():
                    other.free()  # building takes as much again
                programs[key] = self.engine.program(piece, shapes)
            return programs[key]

        compute = program_for(plan.shared, [(plan.stride, *planes, self.preparation.channels)])
        rings = {
            node: self._ring(node, shape)
            for node, shape in zip(plan.shared.outputs, compute.output_shapes, strict=True)
        }
        kept: list[np.ndarray] = []
        computed = 0
        for number, (start, piece) in enumerate(windows.items(), start=1):
            while computed < start + plan.reached(piece):
                places = [rings[n].append(start // per_entry(n) + plan.oldest(n, piece)) for n in rings]
                # Beyond the end the last slice repeats, as in `cut_windows`.
                slices = np.minimum(np.arange(computed, computed + plan.stride), len(voxels) - 1)
                compute([as_input(voxels[slices])], places)
                computed += plan.stride
            stretches = [rings[node].stretch(start // per_entry(node), *ends) for node, ends in piece.inputs]
            program = program_for(piece, [stretch.shape for stretch in stretches])
            kept.append(np.empty(program.output_shapes[0][:3], np.float32))
            program(stretches, [kept[-1][..., None]])
            if progress:
                progress(number, len(windows))
        return np.concatenate(kept)

    def _ring(self, node: Node, chunk: StretchShape) -> "_Ring":
        """An empty ring for stretches of this shape, in the node's memory."""
        shape, dtype = (self.plan.capacity(node), *chunk[1:]), np.dtype(self.engine.dtype)
        size = math.prod(shape) * dtype.itemsize
        if node not in self._memory or len(self._memory[node]) < size:
            self._memory[node] = _aligned(size)
        return _Ring(self._memory[node][:size].view(dtype).reshape(shape), chunk[0])


class _Ring:
    """The latest entries of a node along depth, in one reused buffer."""

    def __init__(self, entries: np.ndarray, step: int) -> None:
        self.entries, self.step = entries, step
        self.first = self.end = 0  # the buffered entries, counted from the start of the scan

    def append(self, oldest: int) -> np.ndarray:
        """Space for the next chunk after the buffered entries; entries before `oldest` may be dropped."""
        if self.end + self.step - self.first > len(self.entries):
            oldest = min(oldest, self.end)
            held = self.end - oldest
            # NumPy copies through a buffer if the two stretches overlap.
            self.entries[:held] = self.entries[oldest - self.first : self.end - self.first]
            self.first = oldest
        self.end += self.step
        return self.entries[self.end - self.step - self.first : self.end - self.first]

    def stretch(self, start: int, first: int, end: int) -> np.ndarray:
        """Entries `first` to `end`, counted from `start`."""
        return self.entries[start + first - self.first : start + end - self.first]


def _aligned(size: int) -> np.ndarray:
    """Bytes that TensorFlow reads in place."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    first = -raw.ctypes.data % ALIGNMENT
    return raw[first : first + size]
