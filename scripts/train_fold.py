"""Train one fold of the cross-validation."""

from planar3d.cli import main, train

if __name__ == "__main__":
    main(train)
