"""Folders that all pytest-xdist workers of a session share."""

import fcntl
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shared:
    """Makes each folder once in a session; tests must not change it."""

    base: Path

    def folder(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder with a name; the first caller makes it, others wait for that.

        Args:
            name: Identifies the folder; the part after the last slash is its own name.
            make: Makes the folder; gets its path, which does not exist yet.
        """
        place = self.base / hashlib.sha256(name.encode()).hexdigest()[:12]
        place.mkdir(exist_ok=True)
        folder = place / name.rpartition("/")[2]
        made = place / "made"
        with (place / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                make(folder)
                made.touch()
        return folder
