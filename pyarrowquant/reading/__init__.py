"""Model files as layers; one module for each kind of file."""
