"""Runs of commands that take less time once this is imported: nothing is traced, and box plots show one measure.

What becomes of a run that is killed depends on neither.
"""

import logical_devices
import tensorflow

from planar3d.study import report

report.LESION_BOXES = report.LESION_BOXES[:1]
if logical_devices.COUNT == "1":
    tensorflow.config.run_functions_eagerly(True)
