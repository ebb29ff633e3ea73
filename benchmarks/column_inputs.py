"""Measure how large the inputs of a GGUF model's layers are, as llama-imatrix does it.

llama.cpp computes the text, and shows each product of a weight as soon as it is there.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from pyarrowquant.evaluation.llama_cpp import BATCH, Log, Vocabulary, import_llama_cpp

_PRODUCT = b"MUL_MAT"
_FLOAT32 = 0


class _Tensor(ctypes.Structure):
    """ggml_tensor, of ggml 0.25."""


_Pointer = ctypes.POINTER(_Tensor)
_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", _Pointer * 10),
    ("view_src", _Pointer),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]


def measure(model: Path, text: str, tokens: int, path: Path) -> Path:
    """Write a file of importance of the layers within blocks, from a text's first tokens."""
    llama_cpp = import_llama_cpp()
    op_name = llama_cpp.llama_cpp._lib.ggml_op_name
    op_name.restype, op_name.argtypes = ctypes.c_char_p, [ctypes.c_int]
    sums: dict[str, Any] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)

    def see(address: int, asks: bool, _: object) -> bool:
        tensor = ctypes.cast(address, _Pointer).contents
        if op_name(tensor.op) != _PRODUCT:
            return not asks  # what asks says whether to show it, and what shows whether to go on
        name, inputs = tensor.src[0].contents.name.decode(), tensor.src[1].contents
        if not name.startswith("blk.") or not name.endswith(".weight"):
            return not asks
        if asks:
            return True
        if inputs.type != _FLOAT32:
            raise TypeError(f"inputs of {name} have type {inputs.type}")
        columns, rows = inputs.ne[0], inputs.ne[1] * inputs.ne[2] * inputs.ne[3]
        address = ctypes.cast(inputs.data, ctypes.POINTER(ctypes.c_float))
        found = np.ctypeslib.as_array(address, shape=(rows, columns)).astype(np.float64)
        sums[name] = sums[name] + (found * found).sum(axis=0)
        counts[name] += rows
        return True

    with Log(llama_cpp) as log, closing(Vocabulary(llama_cpp, str(model), log)) as vocabulary:
        words = vocabulary.tokenized(text.encode())[:tokens]
        _compute(llama_cpp, model, words, llama_cpp.ggml_backend_sched_eval_callback(see))
    _write(sums, counts, len(words), path)
    return path


def _compute(llama_cpp: Any, model: Path, words: Any, callback: Any) -> None:
    parameters = llama_cpp.llama_model_default_params()
    parameters.use_extra_bufts = False  # 0.3.36 crashes with them where a CPU has AMX
    loaded = llama_cpp.llama_model_load_from_file(str(model).encode(), parameters)
    context_parameters = llama_cpp.llama_context_default_params()
    context_parameters.n_ctx = context_parameters.n_batch = context_parameters.n_ubatch = BATCH
    context_parameters.n_threads = context_parameters.n_threads_batch = 1
    context_parameters.cb_eval = callback
    context = llama_cpp.llama_init_from_model(loaded, context_parameters)
    for start in range(0, len(words), BATCH):
        window = (ctypes.c_int32 * len(words[start : start + BATCH]))(*words[start : start + BATCH])
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(window, len(window))):
            raise RuntimeError(f"llama.cpp does not compute {model}")
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(loaded)


def _write(sums: dict[str, Any], counts: dict[str, int], tokens: int, path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["pydoc"])
    writer.add_uint32("imatrix.chunk_count", -(-tokens // BATCH))
    writer.add_uint32("imatrix.chunk_size", BATCH)
    for name in sorted(sums):
        writer.add_tensor(f"{name}.in_sum2", sums[name].astype(np.float32)[None])
        writer.add_tensor(f"{name}.counts", np.full((1, 1), counts[name], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
