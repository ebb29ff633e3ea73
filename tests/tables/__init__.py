"""Tests of what `pyarrowquant.tables` makes of tables."""
