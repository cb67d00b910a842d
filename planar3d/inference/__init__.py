"""From a trained network and a scan to a mask."""
