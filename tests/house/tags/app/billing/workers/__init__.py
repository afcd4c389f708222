"""Workers."""

from .chancy_instance import get_chancy

__all__ = ["get_chancy"]
