"""The command line, as `planar3d` and as `python -m planar3d`."""

try:
    from planar3d.cli import main
except KeyboardInterrupt:  # later ones are the command's, see `interruptible`
    raise SystemExit(130) from None

if __name__ == "__main__":
    main()
