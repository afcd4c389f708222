"""The template's releases, from its history, and repositories with these releases.

A release is a commit with the subject `release: vX.Y.Z`, because a clone may have no tags.
Every test that uses `RELEASES` automatically covers new releases.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.version import Version

from .support import COPIER, GIT, TEMPLATE, run

# The working tree with its uncommitted changes, as a release after all others.
WORKING_TREE = "v99.0.0"
# Files that no update reads; without them Copier's clones are faster.
UNREAD = ("tests", "benchmarks", "docs", "uv.lock")
# A release after the working tree.
NEXT = "v99.1.0"
# The module of a service that this release changes.
INSTANCE = "workers/chancy_instance.py"
RELEASE = re.compile(r"([0-9a-f]{40}) release: (v\d+\.\d+\.\d+)")


def _find_releases() -> dict[str, str]:
    log = run("git", "log", "--reverse", "--format=%H %s", cwd=TEMPLATE).stdout
    found = filter(None, map(RELEASE.fullmatch, log.splitlines()))
    return {version: commit for commit, version in (match.groups() for match in found)}


# The commits by version, the oldest first.
RELEASES = _find_releases()


# The releases whose services contain their own copy of the machinery.
OF_COPIES = [release for release in RELEASES if Version(release) < Version("0.5.0")]
# The releases from which every test runs; costly tests of the others run with --slow.
ALWAYS = {OF_COPIES[0], OF_COPIES[-1], [*RELEASES][-1]}
# The oldest and the newest of OF_COPIES; the releases between run with --slow.
OLDEST_AND_NEWEST = [
    release
    if release in (OF_COPIES[0], OF_COPIES[-1])
    else pytest.param(release, marks=pytest.mark.slow)
    for release in OF_COPIES
]


def make_template(folder: Path, without: Sequence[str] = UNREAD) -> Path:
    """Makes a repository of the template with a tag for each release and the working tree."""
    run("git", "clone", "--quiet", "--no-checkout", TEMPLATE, folder, cwd=TEMPLATE)
    for tag in run("git", "tag", cwd=folder).stdout.split():
        run("git", "tag", "--delete", tag, cwd=folder)
    for version, commit in RELEASES.items():
        run("git", "read-tree", commit, cwd=folder)
        _release(folder, version, without)
    run("git", "read-tree", "--empty", cwd=folder)
    run("git", "--git-dir", folder / ".git", "add", "--all", cwd=TEMPLATE)
    _release(folder, WORKING_TREE, without)
    run("git", "reset", "--quiet", "--hard", WORKING_TREE, cwd=folder)
    pack(folder)
    return folder


def _release(folder: Path, version: str, without: Sequence[str]) -> None:
    """Makes a release of the files in the index."""
    if without:
        remove = ("rm", "-r", "--cached", "--quiet", "--ignore-unmatch")
        run("git", *remove, *without, cwd=folder)
    tree = run("git", "write-tree", cwd=folder).stdout.strip()
    committed = run(*GIT, "commit-tree", tree, "-m", version, cwd=folder).stdout
    run("git", "tag", version, committed.strip(), cwd=folder)


def make_next_release(folder: Path, without: Sequence[str] = UNREAD) -> Path:
    """Makes such a repository with a further release that changes a line of INSTANCE."""
    make_template(folder, without)
    instance = folder / "template" / "{{ service_root }}" / INSTANCE
    _, rest = instance.read_text().split("\n", 1)
    instance.write_text(f'"""Holds the Chancy, as the next release has it."""\n{rest}')
    commit_all(folder)
    run("git", "tag", NEXT, cwd=folder)
    return folder


def pack(folder: Path) -> None:
    """Packs a repository like its host does, because Copier clones it for every render."""
    run("git", "gc", "--quiet", cwd=folder)


def list_files(folder: Path) -> list[str]:
    """The existing files of a repository in order, without ignored ones."""
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=folder)
    names = filter(None, listed.stdout.split("\0"))
    return sorted({name for name in names if (folder / name).is_file()})


def read_files(folder: Path) -> dict[str, bytes]:
    """The content of these files by name."""
    return {name: (folder / name).read_bytes() for name in list_files(folder)}


def commit_all(folder: Path) -> None:
    """Commits all changes in a repository, even if there are none."""
    run("git", "add", "--all", cwd=folder)
    run(*GIT, "commit", "--quiet", "--allow-empty", "--message=all", cwd=folder)


def update(folder: Path, *arguments: str) -> str:
    """Runs `copier update` with the default at every prompt; returns its output."""
    result = run(
        *COPIER, "update", "--trust", "--defaults", *arguments, folder, cwd=folder
    )
    return result.stdout + result.stderr


def three_way_merge(ours: bytes, base: bytes, theirs: bytes, folder: Path) -> bytes:
    """git's merge of two edits of one text, with Copier's conflict markers."""
    if ours == base or theirs in (ours, base):
        return theirs if ours == base else ours
    paths = []
    for name, content in (("ours", ours), ("base", base), ("theirs", theirs)):
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    labels = ("before updating", "last update", "after updating")
    options = [option for label in labels for option in ("-L", label)]
    run("git", "merge-file", *options, *paths, cwd=folder, check=False)
    return paths[0].read_bytes()
