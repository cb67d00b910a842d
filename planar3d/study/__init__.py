"""Studies over all stages: cross-validation, reproduction, report."""
