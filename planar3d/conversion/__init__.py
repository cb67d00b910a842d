"""Any functional 2D Keras network into 3D: its graph walked, each layer replaced, each weight mapped."""
