"""Score a predicted mask against an expert mask."""

from planar3d.cli import evaluate, main

if __name__ == "__main__":
    main(evaluate)
