"""The template's repository from a project's answers: its releases and renders."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml
from packaging.version import InvalidVersion, Version

from .answers import Answers, Project
from .repository import Refused, alone, git, reason_in

# Copier's short forms of URLs, which git does not know.
SHORT = {"gh:": "https://github.com/", "gl:": "https://gitlab.com/"}
LOST = "make sure that _src_path in the answers file names the template"
# The ways out for messages of Copier and git.
WAYS_OUT = {
    "Unknown revision": "run git fetch --tags in the template's repository",
    "fatal: ": LOST,
}


class Template:
    """A clone of the template in a scratch folder."""

    def __init__(self, source: str, scratch: Path) -> None:
        """Clones the template.

        Raises:
            Refused: The template cannot be reached.
        """
        self.source = source
        self.folder = scratch / "template"
        command = ("clone", "--quiet", "--no-checkout", _url(source), self.folder)
        try:
            git(scratch, *command)
        except Refused as refused:
            raise Refused(f"{refused}: {LOST}") from refused

    def releases_after(self, release: str) -> list[str]:
        """The newer releases, the oldest first, without pre-releases."""
        mine = version_of(release)
        tags = git(self.folder, "tag", "--list").split()
        found = [(version, tag) for tag in tags if (version := version_of(tag))]
        return [
            tag
            for version, tag in sorted(found)
            if mine and version > mine and not version.is_prerelease
        ]

    def changes_of(self, release: str) -> str:
        """The first paragraph about a release in CHANGELOG.md, in one line; "" without one."""
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
        """Renders a project's release again; returns the folder.

        Args:
            beside_its_main: Whether the file with the app counts as existing; otherwise it
                is rendered.

        Raises:
            Refused: The release no longer exists, or it refuses the answers.
        """
        folder = scratch / project.top.name / project.folder.relative_to(project.top)
        folder.mkdir(parents=True)
        if beside_its_main:
            _put_main(project, scratch / project.top.name)
        data = scratch / "answers.yml"
        asked = {key: answers[key] for key in answers if not key.startswith("_")}
        data.write_text(yaml.safe_dump(asked, allow_unicode=True), encoding="utf-8")
        copier(
            *("copy", "--skip-tasks", f"--vcs-ref={project.release}"),
            *(f"--data-file={data}", self.folder, folder),
            cwd=scratch,
            scratch=scratch,
        )
        return folder


def template_of(project: Project) -> str:
    """The location of the project's template; the answers may have a relative path.

    Raises:
        Refused: The template was an archive, or its path is not a repository from here.
    """
    source = str(project.answers.get("_src_path"))
    for name in ("_src_path", "_commit"):
        value = project.answers.get(name, "")
        if not isinstance(value, str) or (name == "_src_path" and not value):
            raise Refused(
                f"{project.path} has {value!r} as {name}, which is not a text: restore the "
                f"line (git log -p -- {shlex.quote(project.path)} shows it), commit, then "
                "run this again"
            )
    if "_commit" not in project.answers:
        raise Refused(
            f"{project.path} names no release, because its template was not a git repository "
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
        f"{project.path} names the template by a path that is not a git repository from here "
        f"({source}): write its URL or its absolute path as _src_path, commit, then run this "
        "again"
    )


def _put_main(project: Project, top: Path) -> None:
    """Makes an empty file with the app, because the template checks that it exists."""
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
    """The version of a tag, or of git's description of a commit after a tag."""
    text = re.sub(r"-(\d+)-g([0-9a-f]+)$", r".post\1+\2", release)
    try:
        return Version(text)
    except InvalidVersion:
        return None


def copier(*arguments: str | Path, cwd: Path, scratch: Path) -> str:
    """Runs a Copier command without prompts; returns its output.

    The template's tasks may run, because this program comes from the same template. The
    user's git settings do not affect the repositories that Copier makes for itself.

    Args:
        scratch: The folder for Copier's temporary folders, which remain if it is killed.

    Raises:
        Refused: Copier failed; the reason is git's line or the last line of the traceback.
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
        # After a failed program of the template, Copier adds its own line, which is removed.
        printed = re.sub(r"\nTask \[.*", "", result.stderr)
        reason = reason_in(printed) or f"copier ended with {result.returncode}"
        for before in ("ValueError: ", "Validation error for question "):
            reason = reason.removeprefix(before)
        for sign, way_out in WAYS_OUT.items():
            if reason.startswith(sign):
                reason += f": {way_out}"
        raise Refused(reason)
    return result.stdout
