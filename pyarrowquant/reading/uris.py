"""URIs of stores, and how they are shown."""

from __future__ import annotations


def is_uri(path: object) -> bool:
    """Tell a URI from a path of this machine."""
    return isinstance(path, str) and "://" in path


def shown_uri(uri: str) -> str:
    """Return a URI as messages have it, without what may be secret: keys and a query."""
    if not is_uri(uri):
        return uri
    scheme, mark, rest = uri.partition("://")
    bucket, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}{mark}{bucket.rpartition('@')[2]}{slash}{path}"
