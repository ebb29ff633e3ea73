"""The templates that make texts of chats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pyarrowquant._core.quoting import quoted
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.tokenizer_files import TOKENIZER_CONFIG, TokenizerFiles

CHAT_TEMPLATE = "chat_template.jinja"
OLD_CHAT_TEMPLATE = "chat_template.json"
_OTHERS = "additional_chat_templates"
_KEY = "chat_template"


def describe_chat_template(files: TokenizerFiles, metadata: Metadata) -> None:
    """Add the templates of a folder, which a file of their own says before its configs."""
    if files.has(CHAT_TEMPLATE):
        others = sorted(Path(files.folder.path, _OTHERS).glob("*.jinja"))
        named = [
            {"name": path.stem, "template": _read(files, f"{_OTHERS}/{path.name}")}
            for path in others
        ]
        default = _read(files, CHAT_TEMPLATE)
        metadata.add.add_chat_template(
            [{"name": "default", "template": default}, *named] if named else default
        )
        return
    for name in (TOKENIZER_CONFIG, OLD_CHAT_TEMPLATE):
        said = files.said(name).get(_KEY)
        if said is None:
            continue
        if not isinstance(said, str) and not (isinstance(said, list) and all(map(_named, said))):
            raise ValueError(
                f"'{files.path(name)}': {_KEY} must be a text, or a list of templates with name "
                f"and template, it is {quoted(said)}"
            )
        if said:
            metadata.add.add_chat_template(said)
        return


def _read(files: TokenizerFiles, name: str) -> str:
    try:
        return files.read(name).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{files.path(name)}' is no UTF-8: {error}") from None


def _named(template: object) -> bool:
    return isinstance(template, Mapping) and all(
        isinstance(template.get(key), str) for key in ("name", "template")
    )
