"""Tests of `pyarrowquant.formats`."""
