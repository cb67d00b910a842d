"""Train, predict and score the rounds of a cross-validation."""

from planar3d.cli import crossval, main

if __name__ == "__main__":
    main(crossval)
