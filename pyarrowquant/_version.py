"""The version, for the package's metadata and for the metadata of results."""

__version__ = "0.1.0"
