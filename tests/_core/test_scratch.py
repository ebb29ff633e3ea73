"""Hidden folders of outputs that are not complete yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyarrowquant._core.scratch import write_text


def test_an_interrupt_while_the_folder_is_made_is_one_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.open

    def interrupted(path: Path, *arguments: Any, **more: Any) -> Any:
        opened = original(path, *arguments, **more)
        if path.name == "lock":
            opened.close()
            raise KeyboardInterrupt
        return opened

    monkeypatch.setattr(Path, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "recipe.json", "{}")
    assert list(tmp_path.iterdir()) == []
