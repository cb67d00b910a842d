"""A network as a graph of layers: Keras' own record of it, what each layer costs, and its reach along depth."""
