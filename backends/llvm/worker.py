"""The program of one compiler process: LLVM text in on stdin, object code out on stdout.

LLVM ends the process on some inputs and llvmlite holds one lock for all threads, so every
compilation runs in a process like this one, which its parent may kill.  It is started as a file,
not as a module of the package, and imports only llvmlite, so that it is up in a tenth of a second.

A message is a 4-byte little-endian length and that many bytes.  A request is two messages, the JSON
object that `run` takes and the text; the answer is two, b"ok" or b"error" and the object, the
assembly or LLVM's complaint.  End of file on stdin ends the process.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from typing import Any, BinaryIO

import llvmlite.binding as llvm

_HEADER = struct.Struct("<I")


def read_message(stream: BinaryIO) -> bytes | None:
    """One message, or None at the end of the stream."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    (size,) = _HEADER.unpack(header)
    body = stream.read(size)
    return body if len(body) == size else None


def write_message(stream: BinaryIO, body: bytes) -> None:
    """Send one message; the caller flushes."""
    stream.write(_HEADER.pack(len(body)))
    stream.write(body)


def _target_machine(request: dict[str, Any]) -> llvm.TargetMachine:
    target = llvm.Target.from_triple(request["triple"])
    return target.create_target_machine(
        cpu=request["cpu"],
        features=request["features"],
        opt=request["opt"],
        reloc=request["reloc"],
        codemodel=request["code_model"],
        abiname=request["abi"],
    )


def _optimize(module: llvm.ModuleRef, machine: llvm.TargetMachine, request: dict[str, Any]) -> None:
    """Simplify function by function; the whole stock pipeline, with LLVM's own vectorizers, only on
    request.  Loops are unrolled where the text asks for it: what LLVM would unroll of itself, by
    the size of the processor's instruction buffers, doubles its work for no faster code.
    """
    options = llvm.create_pipeline_tuning_options(request["opt"])
    options.loop_vectorization = request["vectorize"]
    options.slp_vectorization = request["vectorize"]
    options.loop_interleaving = request["vectorize"]
    options.loop_unrolling = request["vectorize"]
    builder = llvm.create_pass_builder(machine, options)
    if request["vectorize"]:
        builder.getModulePassManager().run(module, builder)
        return
    passes = builder.getFunctionPassManager()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)


def run(request: dict[str, Any], text: str) -> bytes:
    """Parse, verify, optimise and emit one module; raises RuntimeError with LLVM's words."""
    machine = _target_machine(request)
    module = llvm.parse_assembly(text, llvm.create_context())
    module.triple = request["triple"]
    module.data_layout = str(machine.target_data)
    module.verify()
    _optimize(module, machine, request)
    if request["output"] == "assembly":
        return str(machine.emit_assembly(module)).encode()
    return bytes(machine.emit_object(module))


def _answer(header: bytes, body: bytes) -> tuple[bytes, bytes]:
    request = json.loads(header)
    # A deadline of its own: a worker whose parent was killed must not compile for ever.
    signal.alarm(int(request["timeout"]) + 5)
    try:
        return b"ok", run(request, body.decode())
    except (RuntimeError, UnicodeDecodeError) as error:
        return b"error", str(error).encode()
    finally:
        signal.alarm(0)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the stream ends."""
    while (header := read_message(requests)) is not None:
        body = read_message(requests)
        if body is None:
            return
        for part in _answer(header, body):
            write_message(answers, part)
        answers.flush()


def main() -> None:
    """Entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()
    # LLVM prints to file descriptor 1 now and then: keep the answers apart from that.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, answers)
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
