"""Tests of `pyarrowquant.recipes`."""
