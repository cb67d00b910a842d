"""From a trained network and a scan to a mask."""

import sys

# OpenVINO reports every import to its makers, over the network and with an identifier kept in the user's home, if it
# finds this package; without the package it works the same.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
