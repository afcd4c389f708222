"""The service's Chancy."""

from chancy import Chancy

_chancy: Chancy | None = None


def set_chancy(chancy: Chancy) -> None:
    global _chancy
    _chancy = chancy


def get_chancy() -> Chancy:
    assert _chancy is not None
    return _chancy
