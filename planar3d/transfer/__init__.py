"""2D kernels to 3D kernels: where 2D weights come from, how they are mapped, how they fill a network."""
