"""Wrong usage ends with 2, whoever notices it; what options cannot be is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import run

WRONG = {
    "no command": ["nope"],
    "no option": ["quantize", "--nope"],
    "group size": ["quantize", "MODEL", "out.parquet", "--group-size", "7"],
    "together": ["quantize", "MODEL", "o.arrow", "--method", "hqq", "--zero-point", "symmetric"],
    "floor": ["quantize", "MODEL", "out.parquet", "--quality-floor", "2"],
    "budget": ["quantize", "MODEL", "out.parquet", "--bits-per-weight", "2"],
    "budget of a recipe": ["recipe", "fit", "MODEL", "r.json", "--bits-per-weight", "1.5"],
    "size": ["quantize", "MODEL", "out.gguf", "--size", "100"],
    "size of a plan": ["quantize", "MODEL", "out.gguf", "--size", "100", "--dry-run"],
    "recipe": ["quantize", "MODEL", "out.parquet", "--recipe", "txt"],
    "recipe show": ["recipe", "show", "txt"],
    "suffix": ["quantize", "MODEL", "out.what"],
    "stream": ["quantize", "MODEL", "-"],
    "stream with a format": ["quantize", "MODEL", "-", "--to", "parquet"],
    "stream of a recipe": ["recipe", "fit", "MODEL", "-", "--bits-per-weight", "4"],
    "stream of weights": ["dequantize", "MODEL", "-"],
}


@pytest.mark.parametrize("what", WRONG)
def test_it_ends_with_2(what: str, model: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        found = run(*(str(model) if word == "MODEL" else word for word in WRONG[what]))
        assert found.exit_code == 2, found.output
        assert "Error: " in found.stderr
        assert what.startswith("stream") is ("is not standard output" in found.stderr)
    assert [path.name for path in tmp_path.iterdir()] == [model.name]


def test_the_version_has_a_short_option() -> None:
    assert run("-V").stdout == run("--version").stdout
