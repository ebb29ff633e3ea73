"""What making a recipe raises."""

from __future__ import annotations

from typing import Any

import pytest

from pyarrowquant.errors import ArgumentTypeError


def message(error: type[Exception], make: Any) -> str:
    with pytest.raises(error) as caught:
        make()
    # Callers catch either for a wrong type.
    assert type(caught.value) is (ArgumentTypeError if error is TypeError else error)
    return str(caught.value)
