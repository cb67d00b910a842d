"""The command line as `python -m planar3d`."""

from planar3d.cli import main

if __name__ == "__main__":
    main()
