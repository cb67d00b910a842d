"""From a trained network and a scan to a mask."""

import os
import sys

# OpenVINO and ONNX Runtime report their use to their makers, over the network and with an identifier kept in the user's
# home: OpenVINO if it finds this package, ONNX Runtime unless this variable is set before it is imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
