"""The engines that irc is measured against, each as a function from a model to a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...ir.errors import EXIT_NO_TOOLCHAIN, Error

Array = np.ndarray[Any, Any]
Call = Callable[[], object]


def onnxruntime(model: str | bytes, inputs: Mapping[str, Array], threads: int) -> Call:
    """A run of an ONNX file (or its bytes) by onnxruntime on the CPU; E0529 where it is missing."""
    try:
        import onnxruntime as ort
    except ImportError:
        raise Error(
            "E0529",
            "onnxruntime is not installed",
            hint="pip install 'tensor-irc[bench]'",
            exit_code=EXIT_NO_TOOLCHAIN,
        ) from None
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = dict(inputs)
    return lambda: session.run(None, feeds)


PEERS: dict[str, Callable[[str | bytes, Mapping[str, Array], int], Call]] = {
    "onnxruntime": onnxruntime,
}
"""Engine by name: (model, inputs, threads) to a call that runs it once."""
