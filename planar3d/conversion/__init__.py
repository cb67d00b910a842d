"""Conversion of any functional 2D Keras network to 3D: layers are replaced and weights mapped."""
