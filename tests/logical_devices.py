"""The processor as several devices, once this is imported: as many as LOGICAL_DEVICES in the environment says."""

import os

COUNT = os.environ.get("LOGICAL_DEVICES", "1")

if COUNT != "1":
    os.environ |= {
        **{"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"},
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={COUNT}",
    }
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import tensorflow as tf

        (processor,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * int(COUNT))
