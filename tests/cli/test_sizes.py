"""How sizes of files are shown."""

import pytest

from pyarrowquant.cli._show import size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (999_400, "999 kB"),
        (999_616, "1 MB"),
        (999_700_000, "1 GB"),
        (2.5e12, "2.5 TB"),
    ],
)
def test_sizes_have_three_digits(count: float, text: str) -> None:
    assert size_text(count) == text
