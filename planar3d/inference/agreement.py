"""Whether a model's bf16 masks are trusted: as published, as found here before, or by the first scan."""

from importlib.metadata import version
from typing import Any

import numpy as np

from planar3d import __version__
from planar3d.environment import bf16_instructions, processor
from planar3d.inference.shared import SharedInference
from planar3d.networks.weights_file import Model
from planar3d.progress import Progress
from planar3d.recipes import Recipe
from planar3d.transfer.download import cached_result, keep_result
from planar3d.transfer.metadata import mapping_in

# Least Dice between a bf16 and a float32 mask at which bf16 is trusted.
AGREEMENT = 0.99
# Least number of marked voxels in both masks for their agreement to apply to other scans.
_ENOUGH = 200


def known_agreement(model: Model) -> tuple[float, str] | None:
    """The Dice of a model's masks in both precisions on this machine, and its source; None if unknown.

    The card's is for masks made by the same rule as in its measurement.
    """
    here = {"instructions": bf16_instructions(), "openvino": version("openvino")}
    published = (model.card or {}).get("agreement") if model.own_recipe == model.recipe else None
    for said in map(mapping_in, published if isinstance(published, list) else []):
        if here.items() <= said.items() and isinstance(said.get("least"), float):
            return said["least"], f"as published for {here['instructions']} and OpenVINO {here['openvino']}"
    dice = mapping_in(cached_result("agreement", _conditions(model))).get("dice")
    return (dice, "from an earlier scan") if isinstance(dice, float) and 0 <= dice <= 1 else None


def keep_agreement(model: Model, dice: float) -> None:
    """Keep a scan's result in the user's cache, if that is writable."""
    conditions = _conditions(model)
    keep_result("agreement", conditions, conditions | {"dice": dice})


def _conditions(model: Model) -> dict[str, Any]:
    return {
        "weights": model.sha256,
        "recipe": model.recipe.to_json(),
        "processor": processor(),
        "instructions": bf16_instructions(),
        "openvino": version("openvino"),
        "planar3d": __version__,
    }


class Checked:
    """Predicts in bf16 if masks are known to agree with float32 or the first scan's mask does, else in float32.

    Args:
        model: with this recipe; None for a network without a file, whose agreement is unknown.
    """

    def __init__(
        self, in_bf16: SharedInference, in_float32: SharedInference, recipe: Recipe, model: Model | None
    ) -> None:
        self.in_bf16, self.in_float32, self.recipe, self.model = in_bf16, in_float32, recipe, model
        self.chosen: SharedInference | None = None
        self.description = in_bf16.description + " if the first scan's mask agrees with float32"
        if model and (found := known_agreement(model)):
            self._choose(found[0], f"(Dice of the masks {found[0]:.4f}, {found[1]})")

    def __call__(self, voxels: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Predict a prepared scan; see `Predictor`."""
        if self.chosen is not None:
            return self.chosen(voxels, progress)
        voxels = np.asarray(voxels)
        probabilities = self.in_bf16(voxels, progress)
        # Compiling takes less than a second, and both at once would take a GiB more than one.
        self.in_bf16.release()
        agreement, marked = self._agreement(voxels, probabilities)
        self.in_float32.release()
        if marked >= _ENOUGH:
            if self.model:
                keep_agreement(self.model, agreement)
            self._choose(agreement, f"(Dice of the masks {agreement:.4f})")
        else:
            basis = "on this scan, whose mask is too small to decide for others"
            self._choose(agreement, basis, for_all=False)
        return probabilities if agreement >= AGREEMENT else self.in_float32(voxels, progress)

    def _choose(self, agreement: float, basis: str, for_all: bool = True) -> None:
        """Choose the precision of all scans, or of one scan only, and describe the choice."""
        used, verb = (self.in_bf16, "agrees") if agreement >= AGREEMENT else (self.in_float32, "does not agree")
        if for_all:
            self.chosen = used
        self.description = f"{used.description}; bf16 {verb} with float32 {basis}"

    def _agreement(self, voxels: np.ndarray, probabilities: np.ndarray) -> tuple[float, int]:
        """Dice of both masks in the center of the window with most bf16 voxels, and the sum of their voxels.

        The Dice is 1 if both are empty.
        """
        depth, stride, targets = self.recipe.tiles.depth, self.recipe.tiles.stride, self.recipe.targets
        margin = (depth - stride) // 2

        def marked(part: np.ndarray) -> np.ndarray:
            # The rule may be relative to the highest probability of the whole scan.
            return targets.assign(part[..., np.newaxis], float(probabilities.max()))

        in_bf16 = marked(probabilities)
        counts = in_bf16.sum(axis=(1, 2))[margin : len(in_bf16) - margin]
        start = int(np.argmax(np.convolve(counts, np.ones(stride), "valid")[::stride])) * stride
        found = in_bf16[start + margin : start + margin + stride]
        expected = marked(self.in_float32.middle(voxels[start : start + depth]))
        both = int(expected.sum()) + int(found.sum())
        return 2 * int((expected & found).sum()) / both if both else 1.0, both
