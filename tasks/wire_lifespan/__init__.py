"""Wires a service's workers into its FastAPI app, and switches imports of moved names."""

from .disk import write
from .moved import OldImport, find_old_imports
from .others import other_apps
from .program import main
from .service import Service, service_of
from .switch import Switched, switch_imports
from .texts import Stop

__all__ = [
    "OldImport",
    "Service",
    "Stop",
    "Switched",
    "find_old_imports",
    "main",
    "other_apps",
    "service_of",
    "switch_imports",
    "write",
]
