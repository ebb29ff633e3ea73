"""Tests of the page that `pyarrowquant report` writes."""
