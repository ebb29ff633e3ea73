"""Special tokens of folders: what texts begin and end with, where a model stops, templates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import hf_folders
import pytest
from commands import failed, run
from tokenizers import processors

from pyarrowquant.llama_cpp.special_tokens import _ENDS

KEYS = ("bos", "eos", "eot", "eom", "unknown", "padding")


def written(folder: Path) -> tuple[dict[str, Any], str]:
    """The keys of a folder's tokenizer, and what was said of it."""
    out = folder.parent / "out.gguf"
    result = run("dequantize", folder, out, "--overwrite")
    assert result.exit_code == 0, result.output
    fields = gguf.GGUFReader(out).fields
    prefix = "tokenizer."
    keys = {
        key.removeprefix(prefix).removeprefix("ggml."): field.contents()
        for key, field in fields.items()
        if key.startswith(prefix)
    }
    return keys, result.stderr


def folder_of(tmp_path: Path, template: str | None = None, **files: Any) -> Path:
    """A folder that says nothing of special tokens but what is given, by files."""
    tokenizer = hf_folders.bpe()
    if template is not None:
        numbers = [(token, tokenizer.token_to_id(token)) for token in hf_folders.SPECIAL]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, pair=None, special_tokens=numbers
        )
    folder = hf_folders.write(
        tmp_path / "model", tokenizer=tokenizer, without=["bos_token_id", "eos_token_id"]
    )
    (folder / "tokenizer_config.json").unlink()
    for name, said in files.items():
        path = folder / f"{name}.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**before, **said}))
    return folder


def number(text: str) -> int:
    return int(hf_folders.bpe().token_to_id(text))


BEGIN, END = (number(text) for text in hf_folders.SPECIAL)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"tokenizer_config": {"eos_token": {"content": "<|end|>"}}}, {"eos": END}),
        ({"special_tokens_map": {"eos_token": {"content": "<|end|>"}}}, {"eos": END}),
        ({"special_tokens_map": {"bos_token": "<|begin|>", "eos_token": "a"}}, {"bos": BEGIN}),
        ({"config": {"eos_token_id": 7}}, {"eos": 7}),
        ({"config": {"eos_token_id": [7, 8]}}, {"eos": 7, "eot": 8}),
        ({"config": {"text_config": {"eos_token_id": 7}}}, {"eos": 7}),
        ({"generation_config": {"eos_token_id": [7, 8, 9]}}, {"eos": 7, "eot": 8, "eom": 9}),
        (
            {"config": {"eos_token_id": 7}, "generation_config": {"eos_token_id": [8, END]}},
            {"eos": 7, "eot": 8},  # llama.cpp stops at <|end|> by itself
        ),
        (
            {"tokenizer_config": {"eos_token": "<|end|>"}, "config": {"eos_token_id": 7}},
            {"eos": END, "eot": 7},
        ),
        (
            {
                "config": {"eos_token_id": 7, "pad_token_id": -1},
                "tokenizer_config": {"pad_token": "<|begin|>", "unk_token": {"content": "a"}},
            },
            {"padding": BEGIN, "unknown": number("a")},
        ),
        ({"config": {"eos_token_id": 7, "pad_token_id": 9999}}, {"padding": None}),
    ],
    ids=str,
)
def test_numbers(tmp_path: Path, files: dict[str, Any], wanted: dict[str, int | None]) -> None:
    keys, said = written(folder_of(tmp_path, **files))
    found = {key: keys.get(f"{key}_token_id") for key in KEYS}
    assert {key: found[key] for key in wanted} == wanted
    assert found["eom"] == wanted.get("eom")
    assert not said


@pytest.mark.parametrize(
    ("template", "config", "wanted", "warning"),
    [
        (None, {}, (False, False), ""),
        (None, {"add_bos_token": True}, (BEGIN, False), ""),
        (None, {"add_eos_token": True}, (False, END), ""),
        ("<|begin|> $A <|end|>", {}, (BEGIN, END), ""),
        ("<|end|> $A", {}, (END, False), ""),
        ("<|begin|> $A", {"add_bos_token": True}, (BEGIN, False), ""),
        ("<|begin|> $A", {"add_bos_token": False}, (False, False), "add_bos_token false"),
        ("$A", {"add_eos_token": True}, (False, END), "add_eos_token true"),
        ("<|begin|> <|begin|> $A", {}, (False, False), "before each text"),
        ("$A <|begin|> <|end|>", {}, (False, False), "after each text"),
    ],
)
def test_around_texts(
    tmp_path: Path,
    template: str | None,
    config: dict[str, bool],
    wanted: tuple[int | bool, int | bool],
    warning: str,
) -> None:
    named = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
    keys, said = written(folder_of(tmp_path, template, tokenizer_config={**named, **config}))
    found = [
        keys[f"{key}_token_id"] if keys[f"add_{key}_token"] else False for key in ("bos", "eos")
    ]
    assert tuple(found) == wanted
    assert keys["add_sep_token"] is False
    assert said.count("\n") == bool(warning)
    assert warning in said


def test_two_processors_put_tokens_each_in_turn(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "<|begin|> $A", tokenizer_config={"eos_token": "<|end|>"})
    path = folder / "tokenizer.json"
    said = json.loads(path.read_text())
    twice = [said["post_processor"]] * 2
    said["post_processor"] = {"type": "Sequence", "processors": twice}
    path.write_text(json.dumps(said))
    _, warning = written(folder)
    assert "'<|begin|>', '<|begin|>' before each text" in warning


def test_more_ends_than_fit(tmp_path: Path) -> None:
    _, said = written(folder_of(tmp_path, config={"eos_token_id": [7, 8, 9, 10]}))
    assert "eos_token_id" in said
    assert f"stop at {hf_folders.bpe().id_to_token(10)!r}" in said


def test_ends_without_rows_are_refused(tmp_path: Path) -> None:
    """Also beside one that a text names."""
    folder = folder_of(
        tmp_path,
        tokenizer_config={"eos_token": hf_folders.SPECIAL[1]},
        generation_config={"eos_token_id": [END, 9999]},
    )
    error = failed("dequantize", folder, tmp_path / "out.gguf")
    assert "generation_config.json' has eos_token_id 9999" in error


@pytest.mark.parametrize("key", ["temperature", "top_k", "min_p", "mirostat", "sequence"])
@pytest.mark.parametrize("value", ["x", [1], {"a": 1}, 2**40, 10**400, 1e300])
def test_odd_settings_of_sampling_are_left_out(tmp_path: Path, key: str, value: object) -> None:
    folder = folder_of(tmp_path, generation_config={key: value, "eos_token_id": END})
    keys, _ = written(folder)
    assert keys["eos_token_id"] == END


def test_no_end(tmp_path: Path) -> None:
    _, said = written(folder_of(tmp_path))
    assert "generation_config.json" in said


def test_what_llama_cpp_stops_at_is_not_said_again(tmp_path: Path) -> None:
    tokenizer = hf_folders.bpe()
    tokenizer.add_special_tokens(list(_ENDS))
    numbers = [tokenizer.token_to_id(text) for text in _ENDS]
    folder = hf_folders.write(
        tmp_path / "model", hf_folders.llama(rows=400), tokenizer, vocab_size=400
    )
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": numbers}))
    keys, _ = written(folder)
    assert keys.get("eom_token_id") is None


def test_templates(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "a"}, {"name": "tool use", "template": "b"}]
    folder = folder_of(tmp_path, config={"eos_token_id": 7}, chat_template={"chat_template": "old"})
    assert written(folder)[0]["chat_template"] == "old"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    keys, _ = written(folder)
    assert (keys["chat_template"], keys["chat_template.tool_use"]) == ("a", "b")
    (folder / "chat_template.jinja").write_text("jinja")
    assert written(folder)[0]["chat_template"] == "jinja"
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/rag.jinja").write_text("more")
    keys, _ = written(folder)
    assert (keys["chat_template"], keys["chat_template.rag"]) == ("jinja", "more")
