"""What llm-compressor does with a whole model and a text: AWQ, GPTQ and errors with importance."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
from candidate import Candidate, Outcome
from judge import windows_of
from quantizer import THREADS
from subject import CONTEXT, TOKENS, Subject

from pyarrowquant.calibration.texts import texts_in

MAKER = "llm-compressor"
METHODS = {  # and whether they take symmetric zero-points, too; AWQ takes long
    "AWQ": (False,),
    "GPTQ": (False, True),
    "imatrix_mse": (False, True),
}


def whole_models(group_size: int) -> Iterator[Candidate]:
    for method, choices in METHODS.items():
        for symmetric in choices:
            zero_point = "symmetric" if symmetric else "integer"
            settings = f"{method} 4 bits, {zero_point}, g {group_size}"
            yield candidate(method, settings, group_size, symmetric)


def candidate(method: str, settings: str, group_size: int, symmetric: bool) -> Candidate:
    def quantize(subject: Subject) -> Outcome:
        import torch
        from compressed_tensors.quantization.lifecycle.forward import fake_quantize
        from llmcompressor import oneshot
        from llmcompressor.pipelines.cache import IntermediatesCache
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(THREADS)
        model: Any = AutoModelForCausalLM.from_pretrained(subject.folder, dtype=torch.float32)
        recipe = modifiers(method, group_size, symmetric)
        started = time.process_time()
        # AWQ asks for memory that a GPU copies from, which is an error without one.
        with patch.object(IntermediatesCache, "pin_memory"):
            oneshot(model=model, dataset=batches(subject), recipe=recipe)
        seconds = time.process_time() - started
        weights = {
            name: parameter.detach().numpy().copy()
            for name, parameter in model.named_parameters()
            if parameter.dtype == torch.float32 and ".weight_" not in name
        }
        bits = 0
        modules = dict(model.named_modules())
        for name in subject.linear:
            module = modules[name.removesuffix(".weight")]
            said = module.quantization_scheme.weights
            scale, zero = module.weight_scale.detach(), module.weight_zero_point.detach()
            with torch.no_grad():
                decoded = fake_quantize(module.weight, scale.half().float(), zero, said)
            weights[name] = decoded.numpy()
            stored = 16 if symmetric else 16 + said.num_bits
            bits += said.num_bits * decoded.numel() + stored * scale.numel()
        weights = {name: np.ascontiguousarray(one) for name, one in weights.items()}
        return Outcome(weights, bits / sum(one.size for one in subject.linear.values()), seconds)

    return Candidate(MAKER, settings, True, quantize)


def modifiers(method: str, group_size: int, symmetric: bool) -> list[Any]:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    observers = {"imatrix_mse": {"observer": "imatrix_mse"}}
    weights = QuantizationArgs(
        num_bits=4,
        symmetric=symmetric,
        strategy="group",
        group_size=group_size,
        **observers.get(method, {}),
    )
    groups = {"linear": QuantizationScheme(targets=["Linear"], weights=weights)}
    said: dict[str, Any] = {"config_groups": groups, "ignore": ["lm_head"]}
    if method == "GPTQ":
        return [GPTQModifier(**said)]
    return [AWQModifier()] * (method == "AWQ") + [QuantizationModifier(**said)]


def batches(subject: Subject) -> Any:
    """Windows of text like those that importance is measured on."""
    import torch
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(subject.folder)
    windows = windows_of(tokenizer, texts_in([])[0].content, CONTEXT)
    count = TOKENS // CONTEXT
    chosen = [torch.tensor(windows[i * len(windows) // count]) for i in range(count)]
    rows = [{"input_ids": each, "attention_mask": torch.ones_like(each)} for each in chosen]
    return DataLoader(rows, batch_size=1)
