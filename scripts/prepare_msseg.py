"""Prepare the scans of a data set for the network."""

from planar3d.cli import main, prepare

if __name__ == "__main__":
    main(prepare)
