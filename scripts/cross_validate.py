"""Train, predict and score the folds of a cross-validation."""

from planar3d.cli import crossval, main

if __name__ == "__main__":
    main(crossval)
