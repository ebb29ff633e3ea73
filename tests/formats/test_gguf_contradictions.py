"""GGUF models whose keys contradict their tensors are refused before any work."""

from __future__ import annotations

from pathlib import Path

import contradicting_models
import gguf_models
import numpy as np
import pytest
import text_models
from commands import failed, succeeded


@pytest.mark.parametrize("kind", contradicting_models.KINDS)
def test_the_file_and_the_key_are_named(tmp_path: Path, kind: str) -> None:
    source = contradicting_models.saved(tmp_path / "m.gguf", kind)
    said = failed("quantize", source, tmp_path / "x.gguf", "--dry-run", code=2)
    assert said.splitlines()[-1] == (
        f"Error: '{source}' would become tensors by themselves, which no engine loads as a model: "
        f"{contradicting_models.KINDS[kind][1]}. Make it again, or use --tensors-only if only "
        "tensors are wanted"
    )
    for way_out in ([tmp_path / "x.gguf", "--tensors-only"], [tmp_path / "x.parquet"]):
        succeeded("quantize", source, *way_out)


@pytest.mark.parametrize("tokens", [text_models.TOKENS, None])
def test_models_that_agree(tmp_path: Path, tokens: list[str] | None) -> None:
    source = text_models.saved(tmp_path / "m.gguf", tokens=tokens)
    succeeded("quantize", source, tmp_path / "x.gguf")


def test_others_are_not_judged(tmp_path: Path) -> None:
    """Of other architectures, blocks may have no tensors, and tables other shapes."""
    tensors = {"blk.7.up.weight": np.ones((4, 32), np.float32)}
    for name in ("deci", "clip"):
        source = gguf_models.written(tmp_path / f"{name}.gguf", tensors, name, block_count=2)
        succeeded("quantize", source, tmp_path / f"{name}-x.gguf")
