"""Checks and replaces the file on disk."""

from __future__ import annotations

import os
from pathlib import Path

from .service import Service
from .texts import ENTERED, LEFT, NOTHING, Stop


def check_file(service: Service, path: Path) -> None:
    """Makes sure that the file can be written.

    Raises:
        Stop: It cannot.
    """
    if not path.exists():
        link = ", only a broken link" if path.is_symlink() else ""
        raise Stop(NOTHING, f"there is no {path}{link}: nothing to wire")
    if path.is_dir():
        raise Stop(LEFT, "it is a directory: name the file with the FastAPI app")
    if not path.is_file():
        raise Stop(LEFT, "it is not a regular file")
    real = Path(os.path.realpath(path))
    if not real.stat().st_mode & 0o222 or not os.access(real, os.W_OK):
        raise Stop(LEFT, f"it is read-only: make it writable (chmod u+w {path})")
    root = repository_of(real.parent)
    if root and (root / ".git").is_file() and root != repository_of(service.folder):
        pointer = (root / ".git").read_text(encoding="utf-8", errors="replace")
        if "modules/" in pointer:
            raise Stop(LEFT, f"it is in the submodule {root.name}: wire it there")


def repository_of(folder: Path) -> Path | None:
    for each in (folder, *folder.parents):
        if (each / ".git").exists():
            return each
    return None


def check_workers(service: Service) -> None:
    """Makes sure that the module exists that the wired file imports.

    Raises:
        Stop: It does not.
    """
    path = service.folder / "workers" / f"{ENTERED.module}.py"
    if not path.is_file():
        raise Stop(
            LEFT,
            f"it would import {path}, which does not exist yet: render the workers first "
            "(copier copy, or copier update of an older release), or name the service's "
            "folder with --package",
        )


def write(path: Path, old: bytes, new: bytes) -> None:
    """Replaces a file's content atomically; mode, owner and symbolic links to it stay.

    Raises:
        Stop: The file changed, has several hard links or belongs to another user.
        OSError: A new file cannot be written in the folder.
    """
    real = os.path.realpath(path)
    status = os.stat(real)
    if status.st_nlink > 1:
        raise Stop(
            LEFT, f"it has {status.st_nlink} hard links, which would be separated"
        )
    temporary = f"{real}.{os.getpid()}.tmp"
    with open(temporary, "xb") as file:
        try:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
            keep_status(real, temporary, status)
            with open(real, "rb") as current:
                if current.read() != old:
                    raise Stop(LEFT, "another program changed it: run this again")
            os.replace(temporary, real)
        except BaseException:
            os.unlink(temporary)
            raise


def keep_status(real: str, temporary: str, status: os.stat_result) -> None:
    """Gives a new file the owner, the attributes and the mode of the old one."""
    owner, new = (status.st_uid, status.st_gid), os.stat(temporary)
    if owner != (new.st_uid, new.st_gid):
        try:
            os.chown(temporary, *owner)
        except PermissionError:
            raise Stop(
                LEFT, "it belongs to another user: run this as that user"
            ) from None
    for name in os.listxattr(real) if hasattr(os, "listxattr") else ():
        if not name.startswith("security."):
            os.setxattr(temporary, name, os.getxattr(real, name))
    os.chmod(temporary, status.st_mode)
