"""Secrets, from the environment in this copy."""

import os


def get_secret_value(name: str) -> str:
    return os.environ[name.upper().replace("-", "_")]
