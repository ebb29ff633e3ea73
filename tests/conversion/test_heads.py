"""A language model that lacks its head is no model for an engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import pytest

import pyarrowquant

HEAD = "lm_head.weight"
FORMATS = ["mlx", "compressed-tensors", "bitsandbytes", "gguf"]
UNTIED: Mapping[str, Any] = {"tie_word_embeddings": False, "model_type": "llama"}


def headless() -> dict[str, np.ndarray]:
    return {name: array for name, array in hf_folders.llama().items() if name != HEAD}


def plan(folder: Path, to: str, **options: Any) -> pyarrowquant.ConversionPlan:
    return pyarrowquant.plan(folder, folder.parent / "out", to=to, **options)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    "config",
    [
        UNTIED,
        {"model_type": "llama", "text_config": {"tie_word_embeddings": False}},
        {**UNTIED, "architectures": ["MistralForCausalLM"]},
    ],
    ids=["own", "of the text", "another class"],
)
def test_a_missing_head_is_found_before_any_work(
    tmp_path: Path, to: str, config: dict[str, Any]
) -> None:
    folder = hf_folders.write(tmp_path / "model", headless(), **config)
    with pytest.raises(ValueError, match="tie_word_embeddings false") as caught:
        plan(folder, to)
    said = str(caught.value)
    assert said.startswith(f"'{folder}' has no output head, such as '{HEAD}'")
    assert "Download the folder anew" in said


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            {"tie_word_embeddings": False, "architectures": "LlamaForCausalLM"},
            "tie_word_embeddings false",
        ),
        ({"tie_word_embeddings": None}, "tie_word_embeddings null"),
        ({"tie_word_embeddings": 0}, "tie_word_embeddings 0"),
        ({"tie_word_embeddings": "false"}, 'tie_word_embeddings "false"'),
        (
            {"tie_word_embeddings": None, "architectures": ["OtherForCausalLM"]},
            "tie_word_embeddings null",
        ),
    ],
)
def test_other_ways_to_say_that_there_is_a_head(
    tmp_path: Path, to: str, config: dict[str, Any], told: str
) -> None:
    said = {"model_type": "llama", **config}
    folder = hf_folders.write(tmp_path / "model", headless(), **said)
    with pytest.raises(ValueError, match="has no output head") as caught:
        plan(folder, to)
    assert f"as it has {told} and the class" in str(caught.value)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    "config",
    [{}, {"architectures": "LlamaForCausalLM"}, {"architectures": ["MistralForCausalLM"]}],
)
def test_classes_that_have_a_head_where_nothing_is_said(
    tmp_path: Path, to: str, config: dict[str, Any]
) -> None:
    folder = hf_folders.write(tmp_path / "model", headless(), **config)
    with pytest.raises(ValueError, match="Download the folder anew") as caught:
        plan(folder, to)
    name = "output.weight" if to == "gguf" else f"'{HEAD}'"
    assert f" has no tensor {name}, which is part of the model" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["OtherForCausalLM"]},
        {"architectures": ["GemmaForCausalLM"], "model_type": "gemma"},
        {"tie_word_embeddings": None, "architectures": ["GemmaForCausalLM"]},
        {"tie_word_embeddings": 1, "architectures": ["OtherForCausalLM"]},
    ],
)
def test_classes_that_may_tie_their_embeddings(tmp_path: Path, config: dict[str, Any]) -> None:
    said = {"model_type": "other", "head_dim": 32, **config}
    folder = hf_folders.write(tmp_path / "model", headless(), **said)
    assert plan(folder, "compressed-tensors").layers


@pytest.mark.parametrize("to", ["parquet", "onnx"])
def test_formats_of_tensors_need_no_head(tmp_path: Path, to: str) -> None:
    folder = hf_folders.write(tmp_path / "model", headless(), **UNTIED)
    assert plan(folder, to, tensors_only=True).layers


@pytest.mark.parametrize("to", ["mlx", "compressed-tensors", "bitsandbytes"])
@pytest.mark.parametrize(
    ("renamed", "config"),
    [
        ({}, {"tie_word_embeddings": True}),
        ({}, {"architectures": ["LlamaModel"]}),
        ({}, {"architectures": ["LlamaForSequenceClassification"]}),
        ({}, {"architectures": []}),
        ({}, {"text_config": {"tie_word_embeddings": True}}),
        ({"model.": ""}, {"architectures": ["LlamaModel"]}),
        ({"model.": ""}, {}),  # as files of models that embed texts have it
        ({"model.": "bert.", "embed_tokens": "embeddings"}, {"architectures": ["BertModel"]}),
        (
            {"model.norm": "embed_out"},
            {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox"},
        ),
        ({"model.norm": "model.lm_head.linear"}, {}),
    ],
)
def test_models_that_have_no_head_by_nature_go_on_working(
    tmp_path: Path, to: str, renamed: dict[str, str], config: dict[str, Any]
) -> None:
    tensors = {}
    for name, array in headless().items():
        for one, other in renamed.items():
            name = name.replace(one, other)
        is_head = "embed_out" in name or "lm_head" in name
        tensors[name] = np.ones((64, 64), np.float32) if is_head else array
    folder = hf_folders.write(tmp_path / "model", tensors, **{**UNTIED, **config})
    assert plan(folder, to).layers


def test_a_head_of_any_name_has_a_row_for_each_token(tmp_path: Path) -> None:
    tensors = headless()
    tensors["model.unknown.weight"] = np.ones((hf_folders.ROWS, 256), np.float32)
    folder = hf_folders.write(tmp_path / "model", tensors, **UNTIED)
    assert plan(folder, "mlx").layers
