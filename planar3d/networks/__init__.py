"""The networks, one per file, named as in their papers."""
