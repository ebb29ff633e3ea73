"""Tests of `pyarrowquant.cli`."""
