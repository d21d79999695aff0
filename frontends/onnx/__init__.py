"""ONNX models to IR: `load` reads a model, `register_onnx_op` adds a row to the import table.

Imports onnx and ir; knows no pass.
"""

from .reader import load
from .table import register_onnx_op

__all__ = ["load", "register_onnx_op"]
