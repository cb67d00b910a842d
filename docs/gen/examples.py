"""Examples in docstrings as blocks of code; Markdown would read them as nested quotations."""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)(>>> .*(?:\n *\S.*)*)", re.MULTILINE)


class Examples(griffe.Extension):
    """Fences the examples of every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called with every module, class, function and attribute."""
        if obj.docstring:
            text = re.sub(r" *# doctest:.*", "", obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(r"\1```pycon\n\1\2\n\1```", text)
