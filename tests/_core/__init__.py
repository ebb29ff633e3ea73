"""Tests of `pyarrowquant._core`."""
