"""The architectures that are known."""

from __future__ import annotations

from pyarrowquant._core.quoting import quoted
from pyarrowquant.llama_cpp.architecture import Architecture
from pyarrowquant.llama_cpp.architectures.bert import Bert, NomicBert, XlmRoberta
from pyarrowquant.llama_cpp.architectures.deepseek import DeepseekV2, DeepseekV3
from pyarrowquant.llama_cpp.architectures.gemma import Gemma, Gemma2, Gemma3
from pyarrowquant.llama_cpp.architectures.glm import Glm4
from pyarrowquant.llama_cpp.architectures.gpt_oss import GptOss
from pyarrowquant.llama_cpp.architectures.llama import Granite, Llama, SmolLM3
from pyarrowquant.llama_cpp.architectures.olmo import Olmo2
from pyarrowquant.llama_cpp.architectures.phi import Phi3
from pyarrowquant.llama_cpp.architectures.qwen import Qwen2, Qwen2Moe, Qwen3, Qwen3Moe
from pyarrowquant.llama_cpp.class_defaults import CLASS_DEFAULTS, family_of
from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters

ARCHITECTURES: tuple[type[Architecture], ...] = (
    Llama,
    SmolLM3,
    Granite,
    Qwen2,
    Qwen3,
    Qwen2Moe,
    Qwen3Moe,
    Gemma,
    Gemma2,
    Gemma3,
    Phi3,
    Olmo2,
    Glm4,
    GptOss,
    DeepseekV2,
    DeepseekV3,
    Bert,
    XlmRoberta,
    NomicBert,
)


def kind_named(name: str) -> type[Architecture]:
    """Return an architecture by llama.cpp's name; of one that is not converted, what all have."""
    return next((kind for kind in ARCHITECTURES if kind.name == name), Architecture)


def ties_by_nature(model_class: str) -> bool:
    """Whether a class is known to have its embeddings as the head where nothing is said."""
    return any(kind.ties for kind in ARCHITECTURES if model_class in kind.classes)


def architecture_of(hyperparameters: Hyperparameters) -> Architecture:
    """Return how a model becomes what llama.cpp loads; an unknown one is an error."""
    classes = hyperparameters.get("architectures")
    named = classes[0] if isinstance(classes, list) and classes else classes
    for kind in ARCHITECTURES:
        if isinstance(named, str) and named in kind.classes:
            usual = CLASS_DEFAULTS[family_of(named)]
            return kind(hyperparameters.completed(usual), named)
    known = sorted(name for kind in ARCHITECTURES for name in kind.classes)
    raise ValueError(
        f"'{hyperparameters.path}' has architectures {quoted(named)}, which is not converted to "
        f"llama.cpp's names. Known are {', '.join(known)}. Convert with llama.cpp's own script and "
        "quantize that GGUF; or give quantize the safetensors file itself with tensors_only=True, "
        "to write its tensors under their own names"
    )
