"""Names and colours of a mask's labels, in the tables of viewers."""

from collections.abc import Mapping

from planar3d.evaluation.figures import outlines
from planar3d.files import write_text
from planar3d.scans.labels import Labels, names_of_labels
from planar3d.scans.outputs import Outputs

# By the name of a viewer's file in `Outputs`: its header, and the format of a line from the label, its colour (0 to
# 255, and 0 to 1) and its name.
_VIEWERS = {
    "fsleyes": ("", "{label} {red} {green} {blue} {name}"),
    "freeview": ("#No. Label R G B A\n0 background 0 0 0 0\n", "{label} {joined} {r} {g} {b} 0"),
    "label_tables": (
        '# ITK-SnAP Label Description File\n    0     0    0    0        0  0  0    "Clear Label"\n',
        '{label:5d} {r:5d} {g:4d} {b:4d}        1  1  1    "{name}"',
    ),
}


def write_label_tables(outputs: Outputs, scored: Mapping[str, Labels]) -> None:
    """Write the tables of ITK-SNAP, FSLeyes and FreeView, in the colours of pages and pictures.

    Args:
        scored: the targets of the mask, by name, with their labels.
    """
    names = names_of_labels(scored)
    colours = outlines(names.values())
    for file, (head, line) in _VIEWERS.items():
        lines = []
        for label, name in names.items():
            r, g, b = bytes.fromhex(colours[name][0][1:])
            shares = {"red": round(r / 255, 4), "green": round(g / 255, 4), "blue": round(b / 255, 4)}
            lines.append(line.format(label=label, name=name, joined=name.replace(" ", "-"), r=r, g=g, b=b, **shares))
        write_text(getattr(outputs, file), head + "\n".join(lines) + "\n")
