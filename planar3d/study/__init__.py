"""Studies that join all stages: cross-validation, reproduction, report."""
