"""The networks, one a file, named as in their papers."""
