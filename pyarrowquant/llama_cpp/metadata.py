"""Keys and values of a GGUF file that is to be made."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from pyarrowquant.reading.gguf import import_gguf
from pyarrowquant.reading.gguf_header import DEFAULT_ALIGNMENT
from pyarrowquant.reading.gguf_keys import encoded_array, encoded_key


class Metadata:
    """Keys as gguf names them.

    Attributes
    ----------
    add : gguf.GGUFWriter
        Whose methods add_... add a key each; it writes no file.
    architecture : str
    alignment : int
        Of the data of tensors.
    """

    alignment = DEFAULT_ALIGNMENT

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        self.add: Any = import_gguf("Writing").GGUFWriter(None, architecture)

    def value(self, key: str) -> Any:
        """Return the value of a key; None for one that is not there."""
        found = self.add.kv_data[0].get(key)
        return None if found is None else found.value

    def value_of_architecture(self, key: str) -> Any:
        """Return the value of a key of gguf's that begins with the architecture; None for none."""
        return self.value(key.format(arch=self.architecture))

    def replace(self, key: str, value: Any) -> None:
        """Give another value to a key that is there."""
        self.add.kv_data[0][key].value = value

    def drop_unwritable(self, prefix: str) -> None:
        """Leave out keys whose values are not of the types that they should have."""
        keys = self.add.kv_data[0]
        for key in [key for key in keys if key.startswith(prefix)]:
            if not _is_writable(key, keys[key]):
                del keys[key]

    def encoded_keys(self) -> Iterator[tuple[str, bytes]]:
        """Give keys, and the bytes that a header has for each with its value."""
        for key, found in self.add.kv_data[0].items():
            yield key, _encoded(key, found)


def _is_writable(key: str, found: Any) -> bool:
    """Whether a value is of the type that it should have."""
    types = import_gguf("Writing").GGUFValueType
    if found.type in (types.STRING, types.ARRAY):
        texts = found.value if found.type == types.ARRAY else [found.value]
        return all(isinstance(text, str) for text in texts)
    try:
        _encoded(key, found)
    except (struct.error, OverflowError):
        return False
    return True


def _encoded(key: str, found: Any) -> bytes:
    if found.type == import_gguf("Writing").GGUFValueType.ARRAY:
        return encoded_array(key, found.value, _type_of_elements(found))
    return encoded_key(key, found.value, found.type)


def _type_of_elements(array: Any) -> int:
    """Return what gguf finds out when it writes."""
    types = import_gguf("Writing").GGUFValueType
    if array.sub_type is not None:
        return int(array.sub_type)
    return int(types.UINT8 if isinstance(array.value, bytes) else types.get_type(array.value[0]))
