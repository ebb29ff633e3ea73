"""What the rest stands on: the Go library, Arrow data, settings, and names of files."""
