"""The engines that are measured, each as a function from a model to a call that runs it once.

All get the same inputs and as many threads, and compute f32 models in f32.  Imports: each engine in
its own function only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...ir.errors import EXIT_NO_TOOLCHAIN, Error

Array = np.ndarray[Any, Any]
Call = Callable[[], object]
Engine = Callable[[str | bytes, Mapping[str, Array], int], Call]


def irc(model: str | bytes, inputs: Mapping[str, Array], threads: int) -> Call:
    """A run of a compiled plan (an `.ircx` file), or of a model that is compiled first."""
    from .. import driver

    if isinstance(model, str) and model.endswith(driver.PLAN_SUFFIX):
        exe: Any = driver.open_plan(model)
    else:
        exe = driver.compile(model, threads=threads)
    feeds = dict(inputs)
    return lambda: exe.run(feeds)


def onnxruntime(model: str | bytes, inputs: Mapping[str, Array], threads: int) -> Call:
    """A run of an ONNX file (or its bytes) by onnxruntime on the CPU; E0529 where it is missing."""
    try:
        import onnxruntime as ort
    except ImportError:
        raise _missing("onnxruntime") from None
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = dict(inputs)
    return lambda: session.run(None, feeds)


def openvino(model: str | bytes, inputs: Mapping[str, Array], threads: int) -> Call:
    """A run by OpenVINO on the CPU in f32, which it leaves where the processor has AMX (E0529)."""
    try:
        import openvino as ov
    except ImportError:
        raise _missing("openvino") from None
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = ov.Core().compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    feeds = dict(inputs)
    return lambda: request.infer(feeds, share_inputs=True, share_outputs=True)


def _missing(package: str) -> Error:
    return Error(
        "E0529",
        f"{package} is not installed",
        hint="pip install 'tensor-irc[bench]'",
        exit_code=EXIT_NO_TOOLCHAIN,
    )


PEERS: dict[str, Engine] = {"onnxruntime": onnxruntime, "openvino": openvino}
"""Engine by name: (model, inputs, threads) to a call that runs it once."""

ENGINES: dict[str, Engine] = {"irc": irc, **PEERS}
"""The peers and this package."""
