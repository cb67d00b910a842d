"""2D kernels to 3D kernels: sources of 2D weights, mappings, and loading into networks."""
