"""Tests of `pyarrowquant.comparison`."""
