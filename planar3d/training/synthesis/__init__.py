"""Synthetic heads with lesions, generated from label maps and the shapes of real lesions."""

from planar3d.training.synthesis.anatomy import Anatomy, read_anatomies, read_anatomy
from planar3d.training.synthesis.generator import GeneratedHead, HeadGenerator, phantom_of
from planar3d.training.synthesis.lesions import LesionShapes

__all__ = ["Anatomy", "GeneratedHead", "HeadGenerator", "LesionShapes", "phantom_of", "read_anatomies", "read_anatomy"]
