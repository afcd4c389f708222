"""The team's own way to secrets."""

import os

_CACHE: dict[str, str] = {}


def read_secret(key: str) -> str:
    if key not in _CACHE:
        _CACHE[key] = os.environ[f"VAULT_{key.upper()}"]
    return _CACHE[key]
