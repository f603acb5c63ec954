"""Paths as permissions name them: absolute, canonical, compared as text and never looked up."""

from __future__ import annotations


def canonical(path: str) -> str:
    """The path with repeated slashes made one. `ValueError` for one that is not absolute or that climbs."""
    if not path.startswith("/"):
        raise ValueError(f"expected an absolute path, found {path[:80]!r}")
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        raise ValueError(f"expected a path without control characters, found {path[:80]!r}")
    if _has_surrogates(path):
        raise ValueError(f"expected a path in UTF-8, found {path[:80]!r}")
    components = [component for component in path.split("/") if component]
    for component in components:
        if component in (".", ".."):
            raise ValueError(f'expected a path without "{component}", found {path[:80]!r}')
    folder = path.endswith("/") and components
    return "/" + "/".join(components) + ("/" if folder else "")


def canonical_file(path: str) -> str:
    """The same for the path of a file, which ends in no slash."""
    if path.endswith("/"):
        raise ValueError(f"expected the path of a file, found {path[:80]!r}")
    return canonical(path)


def covers(granted: str, asked: str) -> bool:
    """Whether a grant of one canonical path reaches another: folders end in `/` and reach all beneath."""
    if granted.endswith("/"):
        return asked.startswith(granted) or asked == granted[:-1]
    return asked == granted


def _has_surrogates(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return True
    return False
