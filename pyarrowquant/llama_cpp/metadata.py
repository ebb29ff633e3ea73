"""Keys and values of a GGUF file that is to be made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyarrowquant.reading.gguf import import_gguf


class Metadata:
    """Keys as gguf names them.

    Attributes
    ----------
    add : gguf.GGUFWriter
        Whose methods add_... add a key each; it writes no file.
    architecture : str
    """

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
        types = import_gguf("Writing").GGUFValueType
        keys = self.add.kv_data[0]
        for key in [key for key in keys if key.startswith(prefix)]:
            found = keys[key]
            texts = found.value if found.type == types.ARRAY else [found.value]
            expects_text = found.type in (types.STRING, types.ARRAY)
            if expects_text and not all(isinstance(text, str) for text in texts):
                del keys[key]

    def items(self) -> Iterator[tuple[str, Any, int, int | None]]:
        """Give keys, values, the numbers of their types, and those of elements of arrays."""
        for key, found in self.add.kv_data[0].items():
            yield key, found.value, *_types_of(found.value, found)


def _types_of(value: Any, found: Any) -> tuple[int, int | None]:
    """Return the type of a value, and that of its elements, as gguf finds it out when it writes."""
    types = import_gguf("Writing").GGUFValueType
    if found.type != types.ARRAY:
        return int(found.type), None
    element = found.sub_type
    if element is None:
        element = types.UINT8 if isinstance(value, bytes) else types.get_type(value[0])
    return int(types.ARRAY), int(element)
