"""Files that inference engines read, written from results of `quantize_batch_arrow`.

Codes are never chosen anew: packed bytes are put into the order of each format, and no more. A
format is imported when it is first used.
"""

from importlib import import_module

TYPE_CHECKING = False  # which checkers take for true
if TYPE_CHECKING:
    from pyarrowquant.formats.bitsandbytes import write_bitsandbytes
    from pyarrowquant.formats.compressed_tensors import write_compressed_tensors
    from pyarrowquant.formats.gguf import write_gguf
    from pyarrowquant.formats.mlx import write_mlx
    from pyarrowquant.formats.onnx import write_onnx

__all__ = [
    "write_bitsandbytes",
    "write_compressed_tensors",
    "write_gguf",
    "write_mlx",
    "write_onnx",
]

if not TYPE_CHECKING:  # with it, a checker would take any name

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"{__name__}.{name.removeprefix('write_')}")
        globals()[name] = value = getattr(module, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
