"""Layouts of data sets, in the order in which they are tried. A new one is a file with its class, and one line here."""

from planar3d.scans.case import Layout
from planar3d.scans.layouts.bids import Bids
from planar3d.scans.layouts.brats import Brats
from planar3d.scans.layouts.camus import Camus
from planar3d.scans.layouts.chaos import Chaos
from planar3d.scans.layouts.msseg import FIRST_DISTRIBUTION, SHANOIR
from planar3d.scans.layouts.nnunet import Decathlon, NnUNet
from planar3d.scans.layouts.table import Table

LAYOUTS: tuple[Layout, ...] = (
    FIRST_DISTRIBUTION,
    SHANOIR,
    Bids(),
    NnUNet(),
    Decathlon(),
    Brats(),
    Chaos(),
    Camus(),
    Table(),
)
