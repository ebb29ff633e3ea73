"""Run the command line: ``python -m pyarrowquant``."""

from pyarrowquant.cli import main

main(prog_name="pyarrowquant")
