"""The examples of the page about clusters, which need the engines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from child import ROOT
from pages import run_examples


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    run_examples(ROOT / "docs" / "clusters.md")
