"""Folders that all pytest-xdist workers of a session share."""

import fcntl
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shared:
    """Makes each folder once in a session; tests leave what is in it alone."""

    base: Path

    def folder(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder of a name; the first that asks makes it, the others wait.

        Args:
            name: Tells the folders apart; what follows the last slash is its own name.
            make: Gets the path, where nothing is yet.
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
