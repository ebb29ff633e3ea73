"""Commands on files of which one bit is wrong: fine, or one line that names the file."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

from attempts import Attempts
from click.testing import CliRunner

from pyarrowquant.cli import main


def attempts(path: str, command: list[str], step: int, bits: int) -> Attempts:
    """Change some bits of each byte, or of every few bytes, one at a time.

    Parameters
    ----------
    path : str
    command : list of str
        FILE stands for the changed file.
    step : int
        Bytes from one that is changed to the next.
    bits : int
        How many bits of a byte.
    """
    whole = Path(path).read_bytes()
    seeded = random.Random(0)
    for byte in range(0, len(whole), step):
        for bit in seeded.sample(range(8), bits):
            yield f"byte {byte} bit {bit}", partial(_attempt, Path(path), whole, byte, bit, command)


def _attempt(path: Path, whole: bytes, byte: int, bit: int, command: list[str]) -> str | None:
    broken = path.with_name(f"broken-{path.name}")
    data = bytearray(whole)
    data[byte] ^= 1 << bit
    broken.write_bytes(data)
    result = CliRunner().invoke(main, [str(broken) if each == "FILE" else each for each in command])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"traceback: {result.exception!r}"
    if result.exit_code not in (0, 1, 2):
        return f"exit code {result.exit_code}"
    if result.exit_code == 0:
        return None
    lines = result.stderr.splitlines()
    if sum(line.startswith("Error: ") for line in lines) != 1 or not lines[-1].startswith("Error"):
        return f"not one line: {result.stderr!r}"
    # Weights that are other numbers now are a matter of a layer.
    if broken.name not in lines[-1] and not (command[0] == "quantize" and "Layer '" in lines[-1]):
        return f"does not name the file: {lines[-1]!r}"
    return None
