"""How embeddings of tokens make that of a text: what a folder says, or what is usual."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import hf_folders
import pytest
from commands import failed, run

MEAN, CLS = 1, 2


def _nomic(folder: Path) -> Path:
    before = "encoder.layers.0."
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (320, 256),
        "embeddings.token_type_embeddings.weight": (2, 256),
        f"{before}attn.Wqkv.weight": (768, 256),
        f"{before}attn.out_proj.weight": (256, 256),
        f"{before}mlp.fc11.weight": (512, 256),
        f"{before}mlp.fc12.weight": (512, 256),
        f"{before}mlp.fc2.weight": (256, 512),
    }
    for norm in ("emb_ln", f"{before}norm1", f"{before}norm2"):
        shapes |= {f"{norm}.weight": (256,), f"{norm}.bias": (256,)}
    config: dict[str, Any] = {"architectures": ["NomicBertModel"], "num_hidden_layers": 1}
    left_out = ["num_key_value_heads", "rms_norm_eps", "rope_theta"]
    return hf_folders.write(folder, hf_folders.weights(shapes), without=left_out, **config)


@pytest.mark.parametrize(("mode", "wanted"), [(None, MEAN), ("pooling_mode_cls_token", CLS)])
def test_what_is_usual_gives_way_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str | None, wanted: int
) -> None:
    folder = _nomic(tmp_path / "model")
    if mode is not None:
        module = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
        (folder / "modules.json").write_text(json.dumps([module]))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling/config.json").write_text(json.dumps({mode: True}))
    done = run("dequantize", folder, tmp_path / "a.gguf")
    assert done.exit_code == 0, done.output
    assert caplog.records == []
    fields = gguf.GGUFReader(tmp_path / "a.gguf").fields
    assert fields["nomic-bert.pooling_type"].contents() == wanted


@pytest.mark.parametrize("text", ["[" * 5000 + "]" * 5000, "[5]", "5", "null", '[{"type": 1}, 2]'])
def test_what_is_no_list_of_modules_is_refused(tmp_path: Path, text: str) -> None:
    folder = _nomic(tmp_path / "model")
    (folder / "modules.json").write_text(text)
    error = failed("quantize", folder, tmp_path / "out.gguf")
    assert "modules.json' is no list of modules" in error
