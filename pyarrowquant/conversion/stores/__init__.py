"""Outputs that go to a store."""
