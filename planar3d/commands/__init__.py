"""The commands, by what they work on; `planar3d.cli` gathers them. Heavy imports wait until a command runs."""
