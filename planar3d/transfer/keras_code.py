"""Configurations of Keras are never built; those that hold code besides, which no weights need, are refused."""

import json
from pathlib import Path
from typing import Any

from planar3d.errors import WeightsError

# Keras stores the bytecode of a Python function under these classes.
_CODE = ("Lambda", "__lambda__")


def read_configuration(text: str | bytes, path: Path) -> Any:
    """Read a network's configuration as JSON.

    Args:
        text: as the file holds it.
        path: the file that errors name.

    Raises:
        WeightsError: it holds a Lambda layer or another Python function.
    """

    def refuse_code(value: dict[str, Any]) -> dict[str, Any]:
        if value.get("class_name") in _CODE:
            raise WeightsError(
                f"{path} holds Python code ({value['class_name']}), which would run where Keras builds the network. "
                "Do not use this file, or have its weights saved alone, with save_weights."
            )
        return value

    return json.loads(text, object_hook=refuse_code)
