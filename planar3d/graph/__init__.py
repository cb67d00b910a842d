"""A network as a graph of layers: from Keras, with the cost of each layer and its reach along depth."""
