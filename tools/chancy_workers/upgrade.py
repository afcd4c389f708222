"""Upgrades the library with the pattern in pyproject.toml and uv.lock, or prints a command."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .answers import Project
from .library import (
    HASH,
    NAME,
    Pin,
    declared,
    folders_of,
    has_dependency,
    is_older,
    missing_extras,
    needed_version,
    newer_ref,
    pin_of,
    versions_near,
)
from .repository import Refused, environment, git, names, reason_in

# The git reference in [tool.uv.sources], and the git reference of a direct dependency.
SOURCE = re.compile(
    r"""(?P<before>^\s*["']?chancy[-_.]runtime["']?\s*=\s*\{[^}]*?"""
    r"""|^\[tool\.uv\.sources\.["']?chancy[-_.]runtime["']?\][^\[]*?)"""
    r"""\b(?:tag|rev)(?P<between>\s*=\s*["'])(?P<ref>[^"']*)""",
    re.M | re.I,
)
DIRECT = re.compile(
    r"""(?P<before>chancy[-_.]runtime(?:\[[^\]]*\])?\s*@\s*git\+[^"'\s]+?)"""
    r"""@(?P<ref>[^"'@#\s]+)(?=#subdirectory=runtime)""",
    re.I,
)
TIMEOUT = 300


@dataclass
class Upgrade:
    """The library of the services of one repository.

    Args:
        top: The repository's top folder.
        dirty: Files with uncommitted changes before the update, which are not changed.
    """

    top: Path
    dirty: set[Path]
    _done: set[Path] = field(default_factory=set)

    @classmethod
    def of(cls, top: Path) -> "Upgrade":
        """Records the uncommitted files before anything is updated."""
        status = git(
            top, "status", "--porcelain", "-z", "--", ":/*pyproject.toml", ":/*uv.lock"
        )
        return cls(top, {top / entry[3:] for entry in names(status)})

    def raise_for(self, projects: Sequence[Project]) -> list[str]:
        """Upgrades the library for updated services; returns the lines for the user."""
        lines: dict[str, None] = {}
        for project in projects:
            try:
                lines.update(dict.fromkeys(self._lines_for(project)))
            except Refused as refused:
                lines[f"the library was not upgraded: {refused}"] = None
        return [*lines]

    def _lines_for(self, project: Project) -> Iterator[str]:
        needed = needed_version(project.service / "workers")
        if needed is None:
            return
        pin = pin_of(project)
        found = [*versions_near(project)]
        files = [folder / "pyproject.toml" for folder in folders_of(project)]
        for file in files:
            if file.is_file() and b"\n<<<<<<< " in file.read_bytes():
                yield (
                    f"{self._shown(file)} has a conflict: choose between its lines, then "
                    f"{self._there(file.parent)}uv lock --upgrade-package {NAME}"
                )
                return
        if missing := missing_extras(project):
            yield f"add the extra {', '.join(missing)}: {add_command(project, pin)}"
        homes = [file for file in files if NAME in (declared(file) or ())]
        if homes and not _is_poetry(homes[0].parent):
            locks = [version for path, version in found if path.suffix == ".lock"]
            old = any(is_older(version, needed) for version in locks)
            yield from self._raise(homes[0], pin, old)
        elif not found or any(is_older(version, needed) for _, version in found):
            verb = "upgrade" if homes or has_dependency(project) else "add"
            yield f"{verb} the library: {add_command(project, pin)}"

    def _raise(self, pyproject: Path, pin: Pin, old: bool) -> Iterator[str]:
        """Upgrades the library in one project, once.

        Args:
            old: Whether the locked version is older than a service needs.
        """
        before = pyproject.read_bytes()
        after = _with_ref(before.decode(), pin).encode()
        needed = old or after != before or self._differs(pyproject)
        if pyproject in self._done or not needed:
            return
        self._done.add(pyproject)
        above = [pyproject.parent, *pyproject.parent.parents]
        locks = [
            folder / "uv.lock"
            for folder in above[: above.index(self.top) + 1]
            if (folder / "uv.lock").is_file()
        ]
        files = [pyproject, *locks[:1]]
        shown = " and ".join(map(self._shown, files))
        update = f"uv lock --upgrade-package {NAME}"
        command = pin.uv if pin.url else update
        line = f"upgrade the library yourself: {self._there(pyproject.parent)}{command}"
        if self.dirty & {*files}:
            yield f"{shown} had uncommitted changes and were not changed: {line}"
            return
        contents = [file.read_bytes() for file in files]
        pyproject.write_bytes(after)
        if locks and (reason := _lock(locks[0].parent)):
            for file, content in zip(files, contents, strict=True):
                file.write_bytes(content)
            yield f"{shown} were not changed, because uv lock failed ({reason}): {line}"
        else:
            yield f"upgraded {NAME} to {pin.ref or pin.range} in {shown}"

    def _shown(self, path: Path) -> str:
        return os.path.relpath(path, self.top)

    def _there(self, folder: Path) -> str:
        """The cd command from the repository's top to a folder, "" for the top itself."""
        return (
            f"cd {shlex.quote(self._shown(folder))} && " if folder != self.top else ""
        )

    def _differs(self, file: Path) -> bool:
        """Whether the update changed a file, which happens in a rendered backend."""
        return bool(git(self.top, "status", "--porcelain", "--", f":(literal){file}"))


def _with_ref(text: str, pin: Pin) -> str:
    """The text of a pyproject.toml with older references replaced by the pin's reference."""
    if not pin.url:
        return text

    def source(found: re.Match[str]) -> str:
        if not newer_ref(found["ref"], pin.ref):
            return found[0]
        key = "rev" if HASH.fullmatch(pin.ref) else "tag"
        return f"{found['before']}{key}{found['between']}{pin.ref}"

    def direct(found: re.Match[str]) -> str:
        ref = pin.ref if newer_ref(found["ref"], pin.ref) else found["ref"]
        return f"{found['before']}@{ref}"

    return DIRECT.sub(direct, SOURCE.sub(source, text))


def _lock(folder: Path) -> str:
    """Locks the newest matching version; returns why it failed, "" on success."""
    if shutil.which("uv") is None:
        return "uv is not installed"
    command = ["uv", "lock", "--upgrade-package", NAME]
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env={**environment(), "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {TIMEOUT} s"
    if result.returncode == 0:
        return ""
    return reason_in(result.stderr) or f"exit {result.returncode}"


def _is_poetry(folder: Path) -> bool:
    text = (folder / "pyproject.toml").read_text(errors="replace")
    return not (folder / "uv.lock").is_file() and (
        (folder / "poetry.lock").is_file() or "[tool.poetry" in text
    )


def add_command(project: Project, pin: Pin) -> str:
    """The command or line for the tool whose files are near a service, by default for uv."""
    for folder in folders_of(project):
        if (folder / "pyproject.toml").is_file():
            if _is_poetry(folder):
                return pin.poetry
            if (
                not [*folder.glob("requirements*.txt")]
                or (folder / "uv.lock").is_file()
            ):
                break
        for path in sorted(folder.glob("requirements*.txt")):
            return f"write {pin.requirement} into {os.path.relpath(path, project.top)}"
    return pin.uv
