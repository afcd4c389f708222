"""The library of a service: the needed version, its source, and the installed version."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from .answers import Answers, Project
from .repository import Refused, git
from .template import SHORT, template_of, version_of

NAME = "chancy-runtime"
NEEDED = re.compile(r"""^require_version\(["'](\d+\.\d+)["']\)""", re.M)
PINNED = re.compile(
    r"chancy[-_.]runtime(?:\[[\w, -]*\])?(?:\s*==\s*([\w.+!-]+)|\s*@\s*\S+@v?(\d[\w.+!-]*))",
    re.I,
)
EXTRAS = re.compile(r"^chancy[-_.]runtime\s*\[([^\]]*)\]", re.M | re.I)
HASH = re.compile("[0-9a-f]{40}")
# The first version of the library.
FIRST = Version("0.5")
# Copier's name of a commit without a tag.
UNTAGGED = re.compile(r"(?:.*-g)?([0-9a-f]{7,40})")


@dataclass(frozen=True)
class Pin:
    """Where a service gets the library.

    Args:
        extras: The extras, with brackets.
        url: The URL of the repository for an installer, without git+; "" for an index.
        ref: A tag, or a commit's full hash.
        range: The matching versions of an index.
        index: The URL of the index, if the library comes from one.
    """

    extras: str
    url: str
    ref: str
    range: str
    index: str = ""

    @property
    def requirement(self) -> str:
        """The dependency in the form of PEP 508."""
        if not self.url:
            return f"{NAME}{self.extras}{self.range}"
        return f"{NAME}{self.extras} @ {self._place(self.ref)}"

    @property
    def uv(self) -> str:
        """The command of uv that adds or upgrades it."""
        if not self.url:
            return (
                f"uv add --index {NAME}={self.index} --upgrade-package {NAME} "
                f'"{self.requirement}"'
            )
        if HASH.fullmatch(self.ref):
            return f'uv add "{self.requirement}"'
        return f'uv add --tag {self.ref} "{NAME}{self.extras} @ {self._place()}"'

    @property
    def poetry(self) -> str:
        """The same command of poetry, which loses the subdirectory of a named requirement."""
        if not self.url:
            return f'poetry add --source {NAME} "{self.requirement}"'
        return f'poetry add "{self._place(self.ref)}{self.extras}"'

    def _place(self, ref: str = "") -> str:
        at = f"@{ref}" if ref else ""
        return f"git+{self.url}{at}#subdirectory=runtime"


def needed_version(workers: Path) -> Version | None:
    """The version that the rendered workers need; None before v0.5.0.

    __init__.py names it. Workers without that file need FIRST if they import the library.
    """
    if found := NEEDED.search(_text(workers / "__init__.py")):
        return Version(found[1])
    imports_it = "chancy_runtime" in _text(workers / "chancy_initialization.py")
    return FIRST if imports_it else None


def _text(file: Path) -> str:
    """The text of a file; "" if it cannot be read."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def pin_of(project: Project) -> Pin:
    """The library for a service, from the source in its answer `runtime`.

    Raises:
        Refused: The template is not a repository, or does not have the commit.
    """
    answers = project.answers
    extras = f"[{extras_of(answers)}]"
    version = needed_version(project.service / "workers") or FIRST
    range = f">={version.major}.{version.minor},<{version.major + 1}"
    if answers.get("runtime") == "index":
        index = answers.get("runtime_index") or "URL_OF_YOUR_INDEX"
        return Pin(extras, "", "", range, str(index))
    source = template_of(project)
    return Pin(extras, url_of(source), _ref_of(source, project.release), range)


def extras_of(answers: Answers) -> str:
    """The extras of the library that the answers need, like `extras` in copier.yml."""
    wanted = {
        "dashboard": answers.get("dashboard", "none") != "none",
        "fastapi": True,
        "sentry": answers.get("sentry", True),
    }
    return ",".join(extra for extra, needed in wanted.items() if needed)


def url_of(source: str) -> str:
    """The template's location for an installer: a full URL without credentials."""
    url = source.removeprefix("git+")
    for short, long in SHORT.items():
        if url.startswith(short):
            return f"{long}{url.removeprefix(short).removesuffix('.git')}.git"
    if "://" not in url and (host := re.match(r"([\w.-]+@[\w.-]+):(?!//)", url)):
        return f"ssh://{host[1]}/{url[host.end() :].lstrip('/')}"
    if "://" not in url:
        # pip does not accept file:/// after the name of a package.
        return f"file://localhost{Path(url).expanduser().resolve()}"
    url = re.sub(r"^file:///", "file://localhost/", url)
    url = re.sub(r"(?<!ssh)://[^/]*@", "://", url)
    url = re.sub(r"(?<=^ssh)://([^/:@]*):[^/@]*@", r"://\1@", url)
    return re.sub(r"[?#].*", "", url)


def _ref_of(source: str, release: str) -> str:
    """A release's tag, or the full hash of a commit that is not a release."""
    untagged = UNTAGGED.fullmatch(release)
    if untagged is None:
        return release
    if Path(source).expanduser().is_dir():
        folder = Path(source).expanduser()
        return git(folder, "rev-parse", "--verify", f"{untagged[1]}^{{commit}}").strip()
    if len(untagged[1]) < 40:
        raise Refused(
            f"{release} is not a release, and its full hash is not known here: update to a "
            "release"
        )
    return untagged[1]


def versions_near(project: Project) -> Iterator[tuple[Path, Version]]:
    """The versions of the library in lock files, pinned requirements and environments.

    They are searched in the service's folder and in the folders above it in the repository.
    """
    for folder in folders_of(project):
        for path in sorted(folder.glob("*.lock")):
            yield from _versions(path, _locked(path))
        for path in sorted(folder.glob("requirements*.txt")):
            pinned = PINNED.findall(path.read_text(errors="replace"))
            yield from _versions(path, (one or other for one, other in pinned))
        pattern = ".venv/lib/python*/site-packages/chancy_runtime-*.dist-info"
        for path in sorted(folder.glob(pattern)):
            version = path.name.removesuffix(".dist-info").partition("-")[2]
            yield from _versions(path, [version])


def folders_of(project: Project) -> list[Path]:
    """The service's folder and those above it, up to the repository's top."""
    service, top = project.service, project.top
    return [
        above for above in (service, *service.parents) if top in (above, *above.parents)
    ]


def _locked(path: Path) -> Iterator[str]:
    try:
        packages = tomllib.loads(path.read_text(encoding="utf-8")).get("package", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return
    for package in packages:
        if isinstance(package, dict) and package.get("name") == NAME:
            yield str(package.get("version", ""))


def _versions(
    path: Path, texts: Iterator[str] | list[str]
) -> Iterator[tuple[Path, Version]]:
    for each in texts:
        try:
            yield path, Version(each)
        except InvalidVersion:
            continue


def has_dependency(project: Project) -> bool | None:
    """Whether the library is among the dependencies; None if there are none."""
    found = None
    for folder in folders_of(project):
        for path in sorted(folder.glob("requirements*.*")):
            text = path.read_text(errors="replace")
            found = bool(found) or bool(
                re.search(r"^chancy[-_.]runtime\b", text, re.M | re.I)
            )
        names = declared(folder / "pyproject.toml")
        if names is not None:
            found = bool(found) or NAME in names
    return found


def declared_extras(project: Project) -> set[str]:
    """The extras of the library that the dependencies name."""
    found: set[str] = set()
    for folder in folders_of(project):
        for path in folder.glob("requirements*.*"):
            for extras in EXTRAS.findall(path.read_text(errors="replace")):
                found.update(
                    canonicalize_name(extra.strip()) for extra in extras.split(",")
                )
        found |= (declared(folder / "pyproject.toml") or {}).get(NAME, set())
    return found


def missing_extras(project: Project) -> list[str]:
    """The extras that the dependencies lack, if they have the library.

    Only the dashboard was always an extra. A service may itself depend on the packages of the
    other extras.
    """
    needed = {"dashboard"} & {*extras_of(project.answers).split(",")}
    return sorted(needed - declared_extras(project)) if has_dependency(project) else []


def declared(pyproject: Path) -> dict[str, set[str]] | None:
    """The dependencies of a project with their extras; None if it declares none."""
    try:
        content = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return None
    project = content.get("project", {})
    lists = [project.get("dependencies", [])]
    lists += project.get("optional-dependencies", {}).values()
    lists += content.get("dependency-groups", {}).values()
    poetry = content.get("tool", {}).get("poetry", {}).get("dependencies", {})
    names: dict[str, set[str]] = {}
    for name, entry in poetry.items():
        extras = entry.get("extras", []) if isinstance(entry, dict) else []
        names.setdefault(canonicalize_name(name), set()).update(extras)
    for each in (each for some in lists for each in some if isinstance(each, str)):
        try:
            requirement = Requirement(each)
        except InvalidRequirement:
            continue
        name = canonicalize_name(requirement.name)
        names.setdefault(name, set()).update(requirement.extras)
    return names if "dependencies" in project or poetry else None


def is_older(version: Version, needed: Version) -> bool:
    """Whether the library's minor release is older than the needed one."""
    return (version.major, version.minor) < (needed.major, needed.minor)


def newer_ref(old: str, new: str) -> bool:
    """Whether a tag or hash in a pyproject.toml must be replaced by another."""
    versions = version_of(old), version_of(new)
    if versions[0] and versions[1]:
        return versions[0] < versions[1]
    return old != new
