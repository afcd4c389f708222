"""The template's repository as a project's answers name it: releases and renders."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml
from packaging.version import InvalidVersion, Version

from .answers import Answers, Project
from .repository import Refused, alone, git, reason_in

# What Copier takes for a URL, and git does not.
SHORT = {"gh:": "https://github.com/", "gl:": "https://gitlab.com/"}
LOST = "make sure that _src_path in the answers file leads to the template"
# How to go on after what Copier and git say.
WAYS_OUT = {
    "Unknown revision": "run git fetch --tags in the template's repository",
    "fatal: ": LOST,
}


class Template:
    """A clone of the template in a scratch folder."""

    def __init__(self, source: str, scratch: Path) -> None:
        """Clones.

        Raises:
            Refused: It cannot be reached.
        """
        self.source = source
        self.folder = scratch / "template"
        command = ("clone", "--quiet", "--no-checkout", _url(source), self.folder)
        try:
            git(scratch, *command)
        except Refused as refused:
            raise Refused(f"{refused}: {LOST}") from refused

    def releases_after(self, release: str) -> list[str]:
        """The newer releases, the oldest first; pre-releases are none."""
        mine = version_of(release)
        tags = git(self.folder, "tag", "--list").split()
        found = [(version, tag) for tag in tags if (version := version_of(tag))]
        return [
            tag
            for version, tag in sorted(found)
            if mine and version > mine and not version.is_prerelease
        ]

    def changes_of(self, release: str) -> str:
        """What CHANGELOG says first about a release, in one line; nothing without one."""
        newest = (["", *self.releases_after("0")])[-1]
        try:
            changelog = git(self.folder, "show", f"{newest or 'HEAD'}:CHANGELOG.md")
        except Refused:
            return ""
        entry = re.search(
            rf"^## {re.escape(release)}\b[^\n]*\n+(.+?)(?=\n\n|\Z)",
            changelog,
            re.M | re.S,
        )
        if entry is None or entry[1].startswith("#"):
            return ""
        return " ".join(entry[1].split())

    def render(
        self,
        project: Project,
        answers: Answers,
        scratch: Path,
        beside_its_main: bool = True,
    ) -> Path:
        """A fresh render of what a project is from; returns its folder.

        Args:
            beside_its_main: The file with the app counts as there; else it is rendered.

        Raises:
            Refused: The release is not there any more, or refuses the answers.
        """
        folder = scratch / project.top.name / project.folder.relative_to(project.top)
        folder.mkdir(parents=True)
        if beside_its_main:
            _put_main(project, scratch / project.top.name)
        data = scratch / "answers.yml"
        told = {key: value for key, value in answers.items() if not key.startswith("_")}
        data.write_text(yaml.safe_dump(told, allow_unicode=True), encoding="utf-8")
        copier(
            *("copy", "--skip-tasks", f"--vcs-ref={project.release}"),
            *(f"--data-file={data}", self.folder, folder),
            cwd=scratch,
            scratch=scratch,
        )
        return folder


def template_of(project: Project) -> str:
    """Where the project's template is; a relative path is stored as it was typed once.

    Raises:
        Refused: It was an archive, or a path leads to no repository from here.
    """
    source = str(project.answers.get("_src_path"))
    for name in ("_src_path", "_commit"):
        told = project.answers.get(name, "")
        if not isinstance(told, str) or (name == "_src_path" and not told):
            raise Refused(
                f"{project.path} has {told!r} as {name}, which is no text: bring the line "
                f"back (git log -p -- {shlex.quote(project.path)} has it), commit, then "
                "run this again"
            )
    if "_commit" not in project.answers:
        raise Refused(
            f"{project.path} names no release, since its template was no git repository "
            f"({source}): write the repository as _src_path and the release, such as "
            "v1.2.3, as _commit, commit, then run this again"
        )
    if ":" in source and not source.startswith(("/", "~", ".")):
        return source
    for start in (Path.cwd(), project.top, project.folder, project.top.parent):
        place = start / Path(source).expanduser()
        if place.is_file() or (place / ".git").exists() or place.suffix == ".git":
            return str(place.resolve())
    raise Refused(
        f"{project.path} names the template by a path that leads to no git repository from "
        f"here ({source}): write its URL or its absolute path as _src_path, commit, then "
        "run this again"
    )


def _put_main(project: Project, top: Path) -> None:
    """Puts an empty file where the answers say that the app is, which the template checks."""
    main = project.main
    asked = project.answers.get("main", "main.py") != "main.py"
    if asked and project.top in main.parents and main.is_file():
        copied = top / main.relative_to(project.top)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.touch()


def _url(source: str) -> str:
    for short, long in SHORT.items():
        if source.startswith(short):
            return f"{long}{source.removeprefix(short)}.git"
    return source.removeprefix("git+")


def version_of(release: str) -> Version | None:
    """The version that a tag, or git's description of a commit after one, stands for."""
    text = re.sub(r"-(\d+)-g([0-9a-f]+)$", r".post\1+\2", release)
    try:
        return Version(text)
    except InvalidVersion:
        return None


def copier(*arguments: str | Path, cwd: Path, scratch: Path) -> str:
    """Runs a command of Copier, which asks nothing; returns what it prints.

    The template is the one that this program is from, so that it may run its own commands.
    Nothing of a person's git set-up reaches the repositories that Copier makes for itself.

    Args:
        scratch: Where its own temporary folders are, which it leaves when it is killed.

    Raises:
        Refused: It ended with an error; the last line of its traceback, or git's, says which.
    """
    command, *others = map(str, arguments)
    variables = {
        **alone(),
        "CHANCY_WORKERS_SWITCHES_IMPORTS": "yes",
        "TMPDIR": str(scratch),
    }
    result = subprocess.run(
        [sys.executable, "-m", "copier", command, "--trust", "--defaults", "--quiet"]
        + others,
        cwd=cwd,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if result.returncode != 0:
        # Of a program of the template's that failed Copier says so in a line of its own.
        printed = re.sub(r"\nTask \[.*", "", result.stderr)
        reason = reason_in(printed) or f"copier ended with {result.returncode}"
        for before in ("ValueError: ", "Validation error for question "):
            reason = reason.removeprefix(before)
        for sign, way_out in WAYS_OUT.items():
            if reason.startswith(sign):
                reason += f": {way_out}"
        raise Refused(reason)
    return result.stdout
