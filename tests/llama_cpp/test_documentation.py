"""The page about GGUF lists the architectures that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from pyarrowquant.llama_cpp.known import ARCHITECTURES

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "gguf.md"


def test_the_table_has_all_classes_and_no_others() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.split("| class in config.json |")[1].split("\n\n")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines()[2:]]
    listed = sorted(name for classes, _ in rows for name in re.findall(r"\w+", classes))
    assert listed == sorted(name for kind in ARCHITECTURES for name in kind.classes)
    names = {name.strip() for _, each in rows for name in each.split(",")}
    assert names == {kind.name for kind in ARCHITECTURES}
