"""The command line, called within the process of the tests."""

from __future__ import annotations

from click.testing import CliRunner, Result

from pyarrowquant.cli import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
