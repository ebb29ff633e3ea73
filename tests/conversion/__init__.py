"""Tests of `pyarrowquant.conversion`."""
