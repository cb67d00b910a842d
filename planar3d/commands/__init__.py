"""The commands, grouped by subject; `planar3d.cli` collects them. Heavy imports are deferred until a command runs."""
