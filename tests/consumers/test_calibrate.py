"""What `calibrate` measures, beside hooks on the modules of transformers that note their inputs.

`make test-transformers` runs these, in an environment that has torch.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import pytest
import torch
import transformers
from calibrated_models import MODELS, SIZES, TEXT, save_tokenizer, saved
from commands import failed, run, succeeded
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import pyarrowquant


def windows(context: int) -> list[list[int]]:
    ids = hf_folders.bpe().encode(TEXT).ids
    return [ids[begin : begin + context] for begin in range(0, len(ids), context)]


def noted(model: Any, context: int) -> dict[str, np.ndarray]:
    """Mean squares of the inputs of modules that have a weight of two dimensions."""
    inputs: dict[str, list[np.ndarray]] = defaultdict(list)
    hooks = [
        module.register_forward_hook(
            lambda _, given, __, name=name: inputs[name].append(
                given[0].detach().double().reshape(-1, given[0].shape[-1]).numpy()
            )
        )
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    with torch.no_grad():
        for window in windows(context):
            model(input_ids=torch.tensor([window]))
    for hook in hooks:
        hook.remove()
    return {
        f"{name}.weight": np.square(np.concatenate(parts)).mean(0) for name, parts in inputs.items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", MODELS)
def test_means_are_those_of_the_modules(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    model = saved(folder, kind, dtype)
    text.write_text(TEXT)
    told = succeeded("calibrate", folder, text, out, "--context", 64, "--threads", 1)
    assert "of a.txt" in told
    assert "Without importance" not in told
    wanted, found = noted(model, 64), load_file(out)
    with safe_open(folder / "model.safetensors", "pt") as file:
        without = set(file.keys()) - set(found)
    compared = 0
    for name, means in wanted.items():
        if name in found:
            np.testing.assert_allclose(found[name], means, rtol=1e-5)
            compared += 1
        else:
            assert "decoder" in name or "lm_head" in name or "gate." in name, name
    heads = "lm_head", "embed_out", "embed_tokens", "word_embeddings"
    assert any(f"{head}.weight" in name for head in heads for name in found)
    assert compared >= 8
    assert all("expert" not in name for name in without)


def sent_to(experts: Any, model: Any) -> list[np.ndarray]:
    """The inputs of tokens that each of four experts gets of windows of 64."""
    sent: dict[int, list[np.ndarray]] = defaultdict(list)

    def note(_: Any, given: Any, __: Any) -> None:
        states, chosen = given[0].detach(), given[1]
        for expert in range(4):
            rows = (chosen == expert).any(-1).nonzero()[:, 0]
            sent[expert].append(states[rows].double().numpy())

    experts.register_forward_hook(note)
    with torch.no_grad():
        for window in windows(64):
            model(input_ids=torch.tensor([window]))
    return [np.concatenate(sent[expert]) for expert in range(4)]


def test_experts_have_inputs_of_their_own(tmp_path: Path) -> None:
    """Of one expert alone, those of tokens that are sent to it."""
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    model = saved(folder, "Qwen3MoeForCausalLM")
    text.write_text(TEXT)
    succeeded("calibrate", folder, text, out, "--context", 64)
    found = load_file(out)
    experts = next(m for n, m in model.named_modules() if n.endswith("layers.1.mlp.experts"))
    for expert, rows in enumerate(sent_to(experts, model)):
        name = f"model.layers.1.mlp.experts.{expert}.up_proj.weight"
        assert found[f"{name}.count"] == len(rows)
        np.testing.assert_allclose(found[name], np.square(rows).mean(0), rtol=1e-5)
    gguf = tmp_path / "out.gguf"
    result = run("quantize", folder, gguf, "--importance", out)
    assert result.exit_code == 0, result.output
    without = [line for line in result.stderr.splitlines() if "Without importance" in line]
    assert not any("_exps" in line for line in without)


def test_the_text_of_the_package_is_used_without_another(tmp_path: Path) -> None:
    folder, out = tmp_path / "model", tmp_path / "i.safetensors"
    saved(folder, "LlamaForCausalLM")
    steps: list[tuple[int, int]] = []
    done = pyarrowquant.calibrate(
        folder, out, tokens=1024, progress=lambda done, total: steps.append((done, total))
    )
    assert done.texts == ("built-in",)
    assert (done.tokens, done.layers) == (1024, 15)
    assert steps == [(tokens, 1024) for tokens in (0, 341, 682, 1024)]  # two layers, and the head


def test_stacks_of_experts_that_are_stored_by_other_names(tmp_path: Path) -> None:
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    model = saved(folder, "GraniteMoeForCausalLM")
    text.write_text(TEXT)
    succeeded("calibrate", folder, text, out, "--context", 64)
    rows = sent_to(model.model.layers[1].block_sparse_moe.experts, model)
    found = load_file(out)
    name = "model.layers.1.block_sparse_moe.input_linear.weight"
    assert found[f"{name}.count"].tolist() == [len(each) for each in rows]
    means = np.concatenate([np.square(each).mean(0) for each in rows])
    np.testing.assert_allclose(found[name], means, rtol=1e-5)


def test_weights_that_come_first_in_products(tmp_path: Path) -> None:
    """As those that widen the time steps of Mamba, which are a part of what another layer gives."""
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    torch.manual_seed(3)
    config = transformers.MambaConfig(
        vocab_size=hf_folders.ROWS, hidden_size=32, num_hidden_layers=1, time_step_rank=8
    )
    model = transformers.MambaForCausalLM(config).eval()
    model.save_pretrained(folder)
    save_tokenizer(folder)
    text.write_text(TEXT)
    succeeded("calibrate", folder, text, out, "--context", 64)
    steps: list[np.ndarray] = []
    mixer = model.backbone.layers[0].mixer
    mixer.x_proj.register_forward_hook(
        lambda _, __, given: steps.append(given.detach()[0, :, :8].double().numpy())
    )
    with torch.no_grad():
        for window in windows(64):
            model(input_ids=torch.tensor([window]))
    np.testing.assert_allclose(
        load_file(out)["backbone.layers.0.mixer.dt_proj.weight"],
        np.square(np.concatenate(steps)).mean(0),
        rtol=1e-5,
    )


@pytest.mark.parametrize("to", ["compressed-tensors", "bitsandbytes", "mlx"])
def test_quantized_models_are_decoded(tmp_path: Path, to: str) -> None:
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    coded, plain = tmp_path / "coded", tmp_path / "plain"
    saved(folder, "LlamaForCausalLM")
    text.write_text(TEXT)
    succeeded("quantize", folder, coded, "--to", to)
    succeeded("dequantize", coded, plain)
    model = transformers.LlamaForCausalLM.from_pretrained(plain, dtype=torch.float32).eval()
    assert "Without importance" not in succeeded("calibrate", coded, text, out, "--context", 64)
    found, wanted = load_file(out), noted(model, 64)
    assert {name for name in found if not name.endswith(".count")} == wanted.keys()
    for name, means in wanted.items():
        np.testing.assert_allclose(found[name], means, rtol=1e-5)


def test_weights_that_lack_or_have_other_shapes_are_said(tmp_path: Path) -> None:
    """transformers would make them up."""
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    saved(folder, "LlamaForCausalLM")
    text.write_text(TEXT)
    file, name = folder / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(file)
    for changed, said in (
        (
            None,
            f"'{folder}' lacks weights that its config.json says, which would be random: {name}",
        ),
        (tensors[name][:-1], f"'{folder}': {name} has shape [95, 64], and by config.json [96, 64]"),
    ):
        others = {key: tensors[key] for key in tensors if key != name}
        save_file(others if changed is None else {**others, name: changed}, file, {"format": "pt"})
        for command in (["calibrate", folder, text, out], ["evaluate", folder, "--text", text]):
            assert said in failed(*command)
    assert not out.exists()


def test_inputs_whose_squares_are_beyond_float32(tmp_path: Path) -> None:
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    saved(folder, "LlamaForCausalLM")
    text.write_text(TEXT)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.0.mlp.up_proj.weight"] *= 1e25
    save_file(tensors, file, {"format": "pt"})
    error = failed("calibrate", folder, text, out)
    assert "the squares of the inputs of 'model.layers.0.mlp.down_proj.weight' are beyond" in error
    assert not out.exists()


def test_configurations_may_say_infinity(tmp_path: Path) -> None:
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    config = transformers.Mamba2Config(
        vocab_size=hf_folders.ROWS,
        hidden_size=32,
        num_hidden_layers=1,
        num_heads=4,
        head_dim=16,
        n_groups=1,
        state_size=8,
    )
    transformers.Mamba2ForCausalLM(config).save_pretrained(folder)
    assert "Infinity" in (folder / "config.json").read_text()
    save_tokenizer(folder)
    text.write_text(TEXT)
    succeeded("calibrate", folder, text, out, "--context", 64)
    assert "backbone.layers.0.mixer.in_proj.weight" in load_file(out)


def test_layers_of_conv1d_have_none(tmp_path: Path) -> None:
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    torch.manual_seed(3)
    config = transformers.GPT2Config(n_embd=64, n_layer=1, n_head=4, **SIZES)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    hf_folders.bpe().save(str(folder / "tokenizer.json"))
    text.write_text(TEXT)
    told = succeeded("calibrate", folder, text, out)
    assert not any("c_attn" in name or "c_fc" in name for name in load_file(out))
    lacking = [f"transformer.h.0.{name}.weight" for name in ("attn.c_attn", "attn.c_proj")]
    assert f"they are no linear layers: {', '.join(lacking)}, " in told
    done = pyarrowquant.calibrate(folder, out, [text], overwrite=True)
    lacking += [f"transformer.h.0.mlp.{name}.weight" for name in ("c_fc", "c_proj")]
    assert [*done.without[:4]] == lacking


def test_no_more_threads_run_than_processors(tmp_path: Path) -> None:
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    saved(folder, "LlamaForCausalLM")
    text.write_text(TEXT)
    threads: set[int] = set()
    pyarrowquant.calibrate(
        folder, out, [text], threads=5000, progress=lambda *_: threads.add(torch.get_num_threads())
    )
    assert threads == {len(os.sched_getaffinity(0))}


def test_models_of_other_classes_are_refused(tmp_path: Path) -> None:
    folder, text = tmp_path / "model", tmp_path / "a.txt"
    saved(folder, "LlamaForCausalLM")
    text.write_text(TEXT)
    config = json.loads((folder / "config.json").read_text())
    for named in ("NoSuchForCausalLM", "AutoTokenizer", "logging"):
        (folder / "config.json").write_text(json.dumps({**config, "architectures": [named]}))
        error = failed("calibrate", folder, text, tmp_path / "i.safetensors")
        assert f"'{folder}': '{named}' of its config.json is no class of models" in error


def test_models_that_need_images_are_refused(tmp_path: Path) -> None:
    folder, text = tmp_path / "model", tmp_path / "a.txt"
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**sizes, "vocab_size": hf_folders.ROWS, "num_hidden_layers": 1},
        vision_config={**sizes, "num_hidden_layers": 1, "image_size": 32, "patch_size": 16},
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    text.write_text(TEXT)
    error = failed("calibrate", folder, text, tmp_path / "i.safetensors", "--context", 32)
    assert "CLIPModel does not run on tokens of text alone" in error
    assert "quantize them without importance" in error


def test_models_that_read_no_text_are_refused(tmp_path: Path) -> None:
    folder, text = tmp_path / "model", tmp_path / "a.txt"
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    save_tokenizer(folder)
    text.write_text(TEXT)
    error = failed("calibrate", folder, text, tmp_path / "i.safetensors")
    assert f"'{folder}': ViTForImageClassification reads no tokens of text" in error


def test_a_tokenizer_must_be_that_of_the_model(tmp_path: Path) -> None:
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    saved(folder, "LlamaForCausalLM")
    text.write_text(TEXT)
    config = json.loads((folder / "config.json").read_text())
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:100]
    save_file(tensors, file, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    assert "and the model has 100: take the tokenizer that came with the model" in failed(
        "calibrate", folder, text, out
    )
    (folder / "tokenizer.json").unlink()  # of T5, transformers would make one that knows no text
    for named in ("PreTrainedTokenizerFast", "T5Tokenizer"):
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": named}))
        error = failed("calibrate", folder, text, out)
        assert f"'{folder}': transformers loads no tokenizer of it" in error
        assert error.count("\n") == 1
    assert not out.exists()


def test_windows_are_no_longer_than_what_a_model_takes(tmp_path: Path) -> None:
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    config = transformers.BertConfig(**{**SIZES, "max_position_embeddings": 48})
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    text.write_text(TEXT)
    error = failed("calibrate", folder, text, out, "--context", 64, code=2)
    assert f"Invalid context: 64. '{folder}' takes up to 48 tokens" in error
    pyarrowquant.calibrate(folder, out, [text])
    with safe_open(out, "np") as found:
        said = json.loads(found.metadata()["pyarrowquant.importance"])
    assert said["windows"] == -(-said["tokens"] // 48)


def test_models_that_change_weights_as_they_are_loaded_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    saved(folder, "LlamaForCausalLM")
    text.write_text(TEXT)
    load = transformers.LlamaForCausalLM.from_pretrained

    def changed(*args: Any, **options: Any) -> Any:
        model, said = load(*args, **options)
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.add_(1)
        return model, said

    monkeypatch.setattr(transformers.LlamaForCausalLM, "from_pretrained", changed)
    error = failed("calibrate", folder, text, out)
    assert f"'{folder}': LlamaForCausalLM changes its weights" in error
    assert "add_ changes weights that are not read yet" in error
    assert "Export it to ONNX" in error
    assert "--importance takes" in error
    assert not out.exists()


def test_weights_of_other_shapes_than_said_are_refused(tmp_path: Path) -> None:
    folder, text = tmp_path / "model", tmp_path / "a.txt"
    saved(folder, "LlamaForCausalLM")
    text.write_text(TEXT)
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))
    error = failed("calibrate", folder, text, tmp_path / "i.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    assert f"'{folder}': {name} has shape [64, 96], and by config.json [64, 192]" in error


def test_what_says_nothing_is_refused(tmp_path: Path) -> None:
    folder, text, out = tmp_path / "model", tmp_path / "a.txt", tmp_path / "i.safetensors"
    saved(folder, "LlamaForCausalLM")
    text.write_text("too short")
    assert "too few" in failed("calibrate", folder, text, out)
    text.write_text(TEXT)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][3] = np.nan
    save_file(tensors, file, metadata={"format": "pt"})
    assert "NaN or Inf" in failed("calibrate", folder, text, out)
    assert not out.exists()
