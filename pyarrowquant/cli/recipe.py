"""pyarrowquant recipe: list or show recipes, or fit one to a budget of bits."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pyarrowquant._core.bounds import BIT_WIDTHS
from pyarrowquant._core.encodings import ENCODINGS, INTEGER
from pyarrowquant._core.quoting import enumerated
from pyarrowquant.cli._read_files import ReadFiles
from pyarrowquant.cli._show import json_option, quoted_path, show_columns, show_json
from pyarrowquant.conversion.destination import check_destination
from pyarrowquant.conversion.importance import reader_with_importance
from pyarrowquant.conversion.source import local_path
from pyarrowquant.formats._gguf_mixes import described
from pyarrowquant.formats._outputs import Outputs
from pyarrowquant.reading.models import open_source
from pyarrowquant.recipes.fitting import OBJECTIVES
from pyarrowquant.recipes.named import ABOUT, file_of
from pyarrowquant.recipes.recipe import Recipe, recipe_of
from pyarrowquant.recipes.saved import file_text
from pyarrowquant.recipes.schemes import SCHEMES
from pyarrowquant.recipes.text import SUFFIXES

CODES = tuple(ENCODINGS)  # but evenly spaced ones, of which there are several widths


@click.group()
def recipe() -> None:
    """List or show recipes, or fit one."""


@recipe.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Print the names of presets, profiles, schemes and mixes, and what each is for.

    A preset and a profile together are a recipe too: text-local.
    """
    if as_json:
        show_json(ABOUT)
    else:
        show_columns(ABOUT.items())


@recipe.command(epilog="Example: pyarrowquant recipe show text-local")
@click.argument("name")
@click.option("--yaml", "as_yaml", is_flag=True, help="Print YAML instead of JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as without it.")
def show(name: str, as_yaml: bool, as_json: bool) -> None:
    """Print the recipe NAME: a file, a preset, a profile, a preset and profile, a scheme or a mix.

    What a mix of llama.cpp gives to tensors goes by the model; standard error says what. It also
    says what a scheme of compressed-tensors has.
    """
    if as_yaml and as_json:
        raise click.UsageError("--yaml and --json exclude each other")
    found = recipe_of(name)
    assert found is not None
    click.echo(found.to_yaml() if as_yaml else found.to_json())
    if found.extends is not None:
        _explain(found.extends)


def _explain(mix: str) -> None:
    """Say what a mix of llama.cpp gives, as it has no rules without a model; or what a scheme."""
    if mix in SCHEMES:
        settings = ", ".join(f"{name} {value}" for name, value in SCHEMES[mix].items())
        click.echo(f"{mix} has the rules of the preset text, and {settings}", err=True)
        return
    click.echo(f"{mix} goes by the tensors of a GGUF model:", err=True)
    show_columns(((f"  {what}", text) for what, text in described(mix)), err=True)
    click.echo(
        f"For those of a model: pyarrowquant quantize MODEL.gguf x.gguf --recipe {mix} --dry-run",
        err=True,
    )


@recipe.command(
    epilog="Example: pyarrowquant recipe fit model.safetensors fitted.json --bits-per-weight 4.25"
)
@click.argument("source")
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--bits-per-weight", type=float, required=True, help="Budget, all counted.")
@click.option(
    "--candidate",
    "candidates",
    type=click.Choice([*map(str, BIT_WIDTHS), *CODES], case_sensitive=False),
    multiple=True,
    metavar="BITS|ENCODING",
    help=f"What to choose from: bits, {enumerated(CODES, 'or')}; may be given again. Default: "
    "all bits.",
)
@click.option(
    "--recipe",
    "rules",
    help="A file, a preset or a profile: what to skip, and settings but bits.",
)
@click.option(
    "--objective",
    type=click.Choice(OBJECTIVES),
    default="squared_error",
    show_default=True,
)
@click.option(
    "--importance",
    "--imatrix",
    help="Importance of columns: a file of calibrate (.safetensors), or of llama-imatrix (.gguf, "
    ".dat).",
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: the CPUs of this process.")
@click.option("--overwrite", is_flag=True, help="Replace DESTINATION if it exists.")
@json_option
def fit(
    source: str,
    destination: Path,
    bits_per_weight: float,
    candidates: tuple[str, ...],
    rules: str | None,
    objective: str,
    importance: str | None,
    threads: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Measure candidates on every layer of SOURCE; write the best recipe for a budget.

    Candidates of some bits are of encoding int, with groups as of --recipe.
    """
    source = local_path(source)
    read = ReadFiles(source)
    check_destination(destination, overwrite, sources=[*read.paths, *file_of(rules)])
    if destination.suffix not in SUFFIXES:
        raise click.UsageError(f"'{destination}' must end with {enumerated(SUFFIXES, 'or')}")
    with read.reading():
        model = open_source(source)
        model.check_names(need_names=True)
        chosen = recipe_of(rules)
        fitted = Recipe.fit(
            reader_with_importance(importance, model, chosen),
            bits_per_weight,
            [_settings(candidate) for candidate in candidates] or None,
            recipe=chosen,
            objective=objective,
            threads=threads,
            progress=sys.stderr.isatty(),
        )
    with Outputs([destination], overwrite) as outputs:
        text = file_text(fitted, destination)
        outputs.temporary(destination).write_text(text, encoding="utf-8", newline="\n")
        read.check()
    expected = fitted.expected
    if expected is not None and as_json:
        show_json(
            {
                "destination": str(destination),
                "bits_per_weight": expected.bits_per_weight,
                "relative_error": expected.relative_error,
            }
        )
    elif expected is not None:
        click.echo(
            f"{expected.bits_per_weight:.3f} bits a weight, relative error "
            f"{expected.relative_error:.5f}: {quoted_path(destination)}"
        )


def _settings(candidate: str) -> dict[str, int | str]:
    """Return what a candidate says: an encoding, or bits, whatever encoding --recipe has."""
    if candidate.isdecimal():
        return {"bit_width": int(candidate), "encoding": INTEGER}
    return {"encoding": candidate}
