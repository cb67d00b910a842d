"""The paper's res-u-net with 3D kernels of other origin than planar: Eshed 2018, Yang 2021. See docs/fidelity.md."""

from planar3d.recipes.kolarik2020 import PAPER

_MAPPINGS = {
    "eshed2018-zero": "zero",
    "eshed2018-average": "average",
    "eshed2018-scale": "scale",
    "yang2021-acs": "acs",
    "yang2021-acs-mean": "acs_mean",
    "yang2021-acs-soft": "acs_soft",
    "paper-repeat": "repeat",  # of Messaoudi 2023, whose DX-Net has it for another encoder
}
INFLATED = tuple(PAPER.changed(name=name, mapping=mapping) for name, mapping in _MAPPINGS.items())
