"""Segment the lesions of raw FLAIR scans."""

from planar3d.cli import main, predict

if __name__ == "__main__":
    main(predict)
