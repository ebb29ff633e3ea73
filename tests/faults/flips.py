"""The child of test_bit_flips.py: runs commands on a file of which one bit is wrong.

It writes down each attempt before it makes it, and what became of it, so that its parent knows
with which bit it died, and can start another child after that one.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

from click.testing import CliRunner

from pyarrowquant.cli import main


def problem(arguments: list[str], file: str) -> str | None:
    """Run a command; say what is wrong about how it ended."""
    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"traceback: {result.exception!r}"
    if result.exit_code not in (0, 1, 2):
        return f"exit code {result.exit_code}"
    if result.exit_code == 0:
        return None
    last = result.stderr.splitlines()[-1]
    if not last.startswith("Error: "):
        return f"no error: {result.stderr!r}"
    # Weights that are other numbers now are a matter of a layer.
    if file not in last and not (arguments[0] == "quantize" and "Layer '" in last):
        return f"does not name the file: {last!r}"
    return None


def run(path: Path, commands: list[list[str]], bits: list[int], log: Path) -> None:
    whole = path.read_bytes()
    with log.open("a") as written:
        for bit in bits:
            data = bytearray(whole)
            data[bit // 8] ^= 1 << (bit % 8)
            broken = path.with_name(f"broken-{path.name}")
            broken.write_bytes(data)
            for command in commands:
                arguments = [str(broken) if each == "FILE" else each for each in command]
                written.write(f"{bit}\t{command[0]}\t")
                written.flush()
                found = problem(arguments, broken.name)
                written.write(f"{found or 'ok'}\n")
                written.flush()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    said = json.loads(sys.argv[1])
    run(Path(said["path"]), said["commands"], said["bits"], Path(said["log"]))
