"""Seeded changes of valid files, and what reading them may do: succeed, or say what is wrong.

Run as a program, it makes and reads the files of a range of seeds, so that a crash of native code
ends a child process and not the tests.
"""

from __future__ import annotations

import json
import random
import re
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pyarrowquant import Recipe, read_weights
from pyarrowquant.reading.config import read_config
from pyarrowquant.reading.location import locate

INTERESTING = (0, 1, 2, 3, 4, 7, 8, 9, 31, 32, 64, 127, 128, 255)
NUMBERS = (b"0", b"-1", b"1.5", b"1e999", b"-0", b"4294967295", b"9223372036854775808", b"9" * 5000)
TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[-\w.!&*<]+|\s+|.', re.DOTALL)
PIECES = (
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\ud800", b"null", b"true", b"NaN", b"[]", b"{}"),
    *(b"&a ", b"*a", b"<<: ", b"!!int ", b"!!timestamp ", b"!!set ", b"!x ", b"- ", b"? ", b"\n  "),
    *(
        b"2001-13-99",
        b"0x",
        b"0b_",
        b"1:99",
        b".inf",
        b"~",
        b"%",
        b"|\n",
        b"#",
        b"[" * 200,
        b"\xff",
    ),
)


def mutated(whole: bytes, seed: int, text: bool, end: int) -> bytes:
    """Change one to three things in the first `end` bytes of a file, which say what the rest is."""
    rng = random.Random(seed)
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
        change = rng.choice(TEXT if text and rng.random() < 0.7 else BINARY)
        change(rng, data, max(1, min(end, len(data))))
    return bytes(data)


def flip(rng: random.Random, data: bytearray, end: int) -> None:
    if data:
        data[rng.randrange(end)] ^= 1 << rng.randrange(8)


def overwrite(rng: random.Random, data: bytearray, end: int) -> None:
    at, size = rng.randrange(end), rng.choice((1, 2, 4, 8))
    most = 2 ** (8 * size)
    number = rng.choice((*INTERESTING, most - 1, most // 2, rng.randrange(most)))
    data[at : at + size] = (number % most).to_bytes(size, "little")


def truncate(rng: random.Random, data: bytearray, end: int) -> None:
    del data[rng.randrange(end if rng.random() < 0.5 else max(1, len(data))) :]


def insert(rng: random.Random, data: bytearray, end: int) -> None:
    at = rng.randrange(end)
    data[at:at] = rng.randbytes(rng.randint(1, 9))


def splice(rng: random.Random, data: bytearray, end: int) -> None:
    begin, to = rng.randrange(end), rng.randrange(end)
    length = rng.randint(1, 40)
    piece = data[begin : begin + length]
    data[to : to + rng.choice((0, length))] = piece


def remove(rng: random.Random, data: bytearray, end: int) -> None:
    at = rng.randrange(end)
    del data[at : at + rng.randint(1, 12)]


def token(rng: random.Random, data: bytearray, end: int) -> None:
    """Replace, remove, repeat or exchange a token of a text."""
    tokens = [match.span() for match in TOKENS.finditer(bytes(data[:end]))]
    if not tokens:
        return
    begin, stop = rng.choice(tokens)
    other_begin, other_stop = rng.choice(tokens)
    new = rng.choice(
        (
            rng.choice(NUMBERS),
            rng.choice(PIECES),
            bytes(data[other_begin:other_stop]),
            bytes(data[begin:stop]) * rng.choice((0, 2, 3)),
        )
    )
    data[begin:stop] = new


BINARY = (flip, overwrite, overwrite, truncate, insert, splice, remove)
TEXT = (token,)


def with_length(data: bytes, old_length: int, old_end: int) -> bytes:
    """Say the length of a safetensors header whose text has changed."""
    header_end = max(8, len(data) - old_length + old_end)
    return (header_end - 8).to_bytes(8, "little") + data[8:]


def read_model(path: Path, seed: int) -> None:
    for _ in read_weights(path, batch_bytes=4096, only_floats=bool(seed % 2)):
        pass


def read_recipe(path: Path, _seed: int) -> None:
    recipe = Recipe.load(path)
    recipe.settings_of("model.layers.0.mlp.up_proj.weight", (8, 64))
    Recipe.from_json(recipe.to_json())


def read_and_write_config(path: Path, _seed: int) -> None:
    json.dumps(read_config(locate(path, None)))


READS = {"recipe": read_recipe, "config": read_and_write_config}


def check(read: Callable[[Path, int], None], path: Path, seed: int, named: str) -> str:
    """Read a file; give what became of it, which begins with BAD where it must not."""
    try:
        read(path, seed)
    except (ValueError, TypeError, OSError) as error:
        message = str(error)
        if isinstance(error, TypeError):
            return f"BAD {type(error).__name__}: {message[:300]}"
        begins = message.removeprefix("Recipe file ").lstrip("'").startswith(named)
        if not begins and not (isinstance(error, OSError) and named in message):
            return f"BAD message does not begin with {named}: {message[:300]}"
        return "BAD long message" if len(message) > 3000 else "refused"
    except Exception as error:
        return f"BAD {type(error).__name__}: {str(error)[:300]}"
    return "read"


def run(
    source: Path, target: Path, first: int, count: int, end: int, kind: str
) -> tuple[Counter[str], list[str]]:
    """Read the files of so many seeds."""
    whole = source.read_bytes()
    results: Counter[str] = Counter()
    bad = []
    read = READS.get(kind, read_model)
    text = kind != "binary"
    named = str(target.parent if kind == "index" else target)  # an index may name a shard
    for seed in range(first, first + count):
        print(seed, file=sys.stderr, flush=True)  # the last one is what ended the process
        data = mutated(whole, seed, text, end)
        if kind == "safetensors" and seed % 4:
            data = with_length(data, len(whole), end)
        target.unlink(missing_ok=True)  # not written over: what is mapped must not change
        target.write_bytes(data)
        result = check(read, target, seed, named)
        results[result.split(" ")[0]] += 1
        if result.startswith("BAD"):
            bad.append(f"seed {seed}: {result}")
    return results, bad


def main() -> None:
    """Take the source, the target, the first seed, their number, the end and the kind."""
    source, target, first, count, end, kind = sys.argv[1:]
    warnings.simplefilter("ignore")  # regular expressions of recipes, and headers of old numpy
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    results, bad = run(Path(source), Path(target), int(first), int(count), int(end), kind)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) >> 10
    print(*bad[:20], sep="\n")
    seconds = time.process_time() - begin
    print(json.dumps({"results": results, "seconds": seconds, "mebibytes": grown}))


if __name__ == "__main__":
    main()
