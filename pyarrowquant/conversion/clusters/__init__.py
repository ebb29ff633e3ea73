"""Batches and files as tasks of a cluster."""
