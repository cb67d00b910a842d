"""FLAIR contrasts: the signal of each tissue relative to white matter, drawn for each head."""

from dataclasses import dataclass

import numpy as np

from planar3d.training.synthesis.anatomy import TISSUES, Anatomy

# Range of the signal, and its variation within a head over centimetres. With two names, the signal is relative to the
# second. Ranges are those of the real scans of `docs/results.md` and of published FLAIR scans, widened; bright cortex,
# insula and limbic cortex are often mistaken for lesions.
_SIGNALS: dict[str, tuple[float, float, float]] = {
    "air": (0.0, 0.02, 0.0),
    "white": (1.0, 1.0, 0.012),
    "cortex": (1.0, 1.55, 0.05),
    "insula/cortex": (1.0, 1.2, 0.05),
    "limbic/cortex": (0.98, 1.2, 0.04),
    "striatum/cortex": (0.88, 1.02, 0.02),
    "pallidum": (0.8, 1.08, 0.02),
    "thalamus/cortex": (0.82, 0.98, 0.02),
    "brainstem": (0.92, 1.18, 0.03),
    "cerebellar white": (0.92, 1.12, 0.03),
    "cerebellar cortex/cortex": (0.82, 1.0, 0.04),
    "ventricle": (0.03, 0.4, 0.02),
    "third and fourth ventricle/ventricle": (0.8, 1.6, 0.1),
    "choroid plexus": (0.5, 1.5, 0.15),
    "fluid/ventricle": (0.8, 1.5, 0.06),
    "vessel": (0.03, 0.6, 0.05),
    "eye/ventricle": (0.7, 1.8, 0.02),
    "fat": (0.7, 2.8, 0.15),
    "muscle": (0.25, 0.75, 0.12),
    "mucosa": (0.6, 2.4, 0.35),
    "skin": (0.4, 1.6, 0.1),
    "nerve": (0.7, 1.1, 0.05),
    "bone": (0.02, 0.18, 0.02),
    "marrow": (0.3, 1.7, 0.15),
}
_DARKER_CORTEX = 0.6  # power of the drawn share: most cortex is near the lower end
_UNEVEN = (0.5, 2.5)  # factor of the variation above, per head
_BRIGHT_VESSELS, _OF_VESSELS = 0.2, (0.9, 1.6)  # of the heads: slow flow
_FLOW, _OF_FLOW = 0.5, (0.15, 0.6)  # of the heads: moving fluid is not nulled
_FLOWING = ("third and fourth ventricle", "fluid")
# Thickness in mm and signal of the rims of the ventricles, of the caps of their horns, and of the halo of slightly
# brighter white matter around them.
_BANDS = ((0.8, 2.5), (0.0, 0.5)), ((2.0, 6.0), (0.0, 0.6)), ((6.0, 11.0), (0.0, 0.12))
_HORN = 8.0  # mm from a horn's end, the extent of a cap


@dataclass(frozen=True)
class Contrast:
    """The signals of one head."""

    signals: np.ndarray  # of `TISSUES` relative to white matter, float32
    spreads: np.ndarray  # variation of each over centimetres, float32
    # Thickness in mm, and signal added to white matter, around ventricles: no lesions.
    bands: tuple[tuple[float, float], ...]  # rim, cap and halo

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Contrast":
        """Draw signals."""
        signals: dict[str, float] = {}
        for names, (least, most, _) in _SIGNALS.items():
            name, _, relative_to = names.partition("/")
            share = rng.random()
            if name == "cortex":
                share **= 1 / _DARKER_CORTEX
            signals[name] = (least + share * (most - least)) * signals.get(relative_to, 1.0)
        spreads = {names.partition("/")[0]: spread for names, (*_, spread) in _SIGNALS.items()}
        for name in ("white", "cortex", "insula", "limbic"):
            spreads[name] *= rng.uniform(*_UNEVEN)
        if rng.random() < _BRIGHT_VESSELS:
            signals["vessel"] = rng.uniform(*_OF_VESSELS)
        if rng.random() < _FLOW:
            spreads |= dict.fromkeys(_FLOWING, rng.uniform(*_OF_FLOW))
        signals["third and fourth ventricle"] = min(signals["third and fourth ventricle"], 0.5)
        levels, uneven = (np.array([of[name] for name in TISSUES], np.float32) for of in (signals, spreads))
        return cls(levels, uneven, tuple((rng.uniform(*wide), rng.uniform(*gain)) for wide, gain in _BANDS))

    def of(self, name: str) -> float:
        """The signal of a tissue."""
        return float(self.signals[TISSUES.index(name)])

    def around_ventricles(self, anatomy: Anatomy) -> tuple[tuple[slice, ...], np.ndarray]:
        """A box around the ventricles, and the signal added there."""
        box, distance = anatomy.from_ventricles
        along = np.arange(distance.shape[1], dtype=np.float32)
        inside = np.flatnonzero((distance == 0).any(axis=(0, 2)))
        ends = inside[[0, -1]] if len(inside) else np.zeros(2)
        at_horns = np.exp(-(((along[:, None] - ends) / _HORN) ** 2)).sum(axis=1)[:, None]
        added = np.zeros(distance.shape, np.float32)
        for (wide, gain), where in zip(self.bands, (1.0, at_horns, 1.0), strict=True):
            added = np.maximum(added, gain * where * np.exp(-((distance / wide) ** 2)))
        return box, added * (anatomy.labels[box] == TISSUES.index("white"))
