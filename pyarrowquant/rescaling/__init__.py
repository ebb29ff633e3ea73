"""Models with other weights that compute the same: factors are moved between their layers."""
