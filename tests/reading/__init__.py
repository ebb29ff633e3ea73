"""Tests of `pyarrowquant.reading`."""
