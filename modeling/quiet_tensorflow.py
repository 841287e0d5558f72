"""TensorFlow, imported without its notices about drivers, instruction sets and saved files.

Importing this takes seconds and half a gigabyte: only processes that build artefacts do.
"""

import os

# Read when the shared libraries load, so they stand before the import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

tf.get_logger().setLevel("ERROR")

__all__ = ["ConverterError", "tf"]
