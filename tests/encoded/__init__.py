"""Encodings other than "int"."""
