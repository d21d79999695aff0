"""ONNX models to IR and back: `load` reads a model, `export_onnx` writes one, `register_onnx_op`
adds a row to the import table, `census` counts what a file holds.

Imports onnx and ir; knows no pass.
"""

from .census import census
from .export import export_onnx
from .reader import load
from .table import register_onnx_op

__all__ = ["census", "export_onnx", "load", "register_onnx_op"]
