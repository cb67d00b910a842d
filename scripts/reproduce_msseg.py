"""Reproduce Kolarik et al. 2020 end to end, on MSSEG 2016 or on the embedded phantom."""

from planar3d.cli import main, reproduce

if __name__ == "__main__":
    main(reproduce)
