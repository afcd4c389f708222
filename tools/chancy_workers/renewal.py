"""Renders a project again: runs `copier update` in a scratch copy, then copies the result back.

The scratch copy has only the project's files, so Copier compares those and not the whole
backend. The backend changes only in one short step at the end.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .answers import Answers, Project, fingerprint, read, rendered_answers
from .library import needed_version
from .repository import Refused, first_of, git, git_alone, names, refuse_ignored
from .source import task
from .template import copier, template_of

CURRENT = ":current:"
# The files of `workers/` that the template renders.
RENDERED = re.compile(
    r"(chancy_\w+|__init__|__main__|\w+/(__init__|worker)|tests/(conftest|test_\w+))\.py"
)
OLD_MODULE = re.compile(r"chancy_(?!initialization|instance)\w+\.py")
# In the copy every file has the repository's content, without conversions of the checkout.
ATTRIBUTES = "* -text -filter -ident\n"


@dataclass(frozen=True)
class Renewal:
    """The result of a renewal.

    Args:
        release: The new release of the files.
        changed: The written or deleted files, from the repository's top folder.
        conflicts: The changed files that contain conflict markers.
        messages: Messages for the user, also those of the template's own programs.
    """

    release: str
    changed: list[str]
    conflicts: list[str]
    messages: str

    def show_files(self) -> None:
        """Prints the files that changed, then those with a conflict."""
        for path in self.changed:
            print(f"  {path}")
        for path in self.conflicts:
            print(
                f"{path} has a conflict: choose between the <<<<<<< and >>>>>>> lines"
            )


@dataclass(frozen=True)
class Stage:
    """One version of a file with a conflict in git's index.

    Args:
        blob: The hash of the version's content.
        number: 1 for the old release, 2 for the team's file, 3 for the new release.
    """

    mode: str
    blob: str
    number: int
    name: str


def renew(
    project: Project,
    changes: Mapping[str, Any] | None = None,
    release: str = "",
    finish: Callable[[Project], None] = lambda updated: None,
) -> Renewal:
    """Updates a project and applies answers: `changes`, and edits of the answers file.

    Args:
        release: The template's release; CURRENT for the release of the files, "" for the
            newest.
        finish: Makes more changes in the scratch copy, or refuses; it gets the project there.

    Raises:
        Refused: The reason why nothing was changed.
    """
    check_clean(project)
    base = _of_folder(project, rendered_answers(project))
    source = template_of(project)
    wanted = _of_folder(project, {**project.answers, **(changes or {})})
    data = {
        key: value
        for key, value in wanted.items()
        if not key.startswith("_") and (key not in base or base[key] != value)
    }
    with scratch_folder() as scratch:
        copy = scratch / project.top.name
        check_out(project, source, base, copy)
        try:
            messages = run_copier(project, copy, data, release)
        except Refused as refused:
            # A version after the newest release, such as a pre-release, counts as current.
            if release or not str(refused).startswith("You are downgrading"):
                raise
            messages = run_copier(project, copy, data, CURRENT)
        messages += resolve_layout(copy)
        _refuse_rejects(copy)
        _put_back_source(project, source, copy / project.path)
        updated = read(copy / project.path)
        assert updated is not None
        messages += switch_imports(updated)
        finish(updated)
        changed, conflicts = take_over(copy, project.top)
    return Renewal(updated.release, changed, conflicts, messages)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that is deleted afterwards, with anything that a stopped Copier left in it."""
    with tempfile.TemporaryDirectory(
        prefix="chancy-workers-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder).resolve()


def _of_folder(project: Project, answers: Answers) -> Answers:
    """The answers for the service's current folder, which may have been renamed."""
    if answers["scope"] == "backend":
        return {**answers, "service": project.answers["service"]}
    path = str(answers.get("package", project.folder.name))
    renamed = path.rpartition(".")[2] != project.folder.name
    return {k: v for k, v in answers.items() if not (renamed and k == "package")}


def check_clean(project: Project) -> None:
    """Makes sure that everything that the update changes can be seen and undone.

    Raises:
        Refused: A file is uncommitted or ignored, or the service's folder is missing.
    """
    if not project.service.is_dir():
        problem, mend = absent(project)
        raise Refused(f"{problem}: {mend}, then run this again")
    status = git(project.top, "status", "--porcelain", "-z", "--", *scope_of(project))
    changed = [entry[3:] for entry in names(status) if entry[2:3] == " "]
    if changed:
        raise Refused(
            f"uncommitted changes in {first_of(changed)}: commit or stash them, then run "
            "this again"
        )
    refuse_ignored(project.top, [project.path, *rendered_files(project)])
    if not git(project.top, "ls-files", "--", f":(literal){project.path}"):
        raise Refused(
            f"git does not track {project.path}: commit it, then run this again"
        )


def absent(project: Project) -> tuple[str, str]:
    """The problem and the way out if a service's folder is missing.

    Only the first service of a backend can be missing.
    """
    return (
        f"{project.name} does not exist",
        f"write the service's new name as service in {project.path}, or bring the folder "
        "back, and commit",
    )


def rendered_files(project: Project) -> list[str]:
    """The existing modules and tests of the workers, from the repository's top."""
    workers = project.service / "workers"
    return sorted(
        path.relative_to(project.top).as_posix()
        for path in workers.rglob("*.py")
        if RENDERED.fullmatch(path.relative_to(workers).as_posix())
    )


def scope_of(project: Project) -> list[str]:
    """The files that an update of the project may read, as git pathspecs."""
    folder = project.folder.relative_to(project.top)
    main = os.path.relpath(project.main, project.top)
    return list(dict.fromkeys((f":(literal){folder.as_posix()}", f":(literal){main}")))


def check_out(project: Project, source: str, base: Answers, copy: Path) -> None:
    """Makes a repository of the project's committed files and its rendered answers.

    Args:
        source: The location of the template.
    """
    copy.mkdir()
    git_alone(copy, "init", "--quiet")
    objects = git(project.top, "rev-parse", "--git-path", "objects").rstrip("\n")
    alternates = copy / ".git" / "objects" / "info" / "alternates"
    alternates.write_text(f"{project.top / objects}\n")
    (copy / ".git" / "info").mkdir()
    (copy / ".git" / "info" / "attributes").write_text(ATTRIBUTES)
    tree = git(project.top, "ls-tree", "-r", "-z", "HEAD", "--", *_paths(project))
    files = [entry for entry in names(tree) if not entry.startswith("160000 ")]
    git_alone(
        copy,
        "update-index",
        "-z",
        "--index-info",
        input="".join(f"{f}\0" for f in files),
    )
    _put_answers(project, source, base, copy)
    _take_out_crlf(copy)
    identity = (
        "-c",
        "user.name=chancy-workers",
        "-c",
        "user.email=chancy-workers@localhost",
    )
    git_alone(
        copy,
        *identity,
        "commit",
        "--quiet",
        "--no-verify",
        "--no-gpg-sign",
        "--message=as rendered",
    )
    git_alone(copy, "reset", "--hard", "--quiet")


def _take_out_crlf(copy: Path) -> None:
    """Ends lines with LF, like the template, in files that have CRLF in the repository."""
    files = with_crlf(copy, ["."])
    listed = "".join(f"{name}\0" for name in files)
    git_alone(copy, "checkout-index", "-z", "--stdin", input=listed)
    for name in files:
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content.replace(b"\r\n", b"\n"))
    git_alone(copy, "update-index", "-z", "--stdin", input=listed)


def with_crlf(folder: Path, files: Sequence[str]) -> list[str]:
    """The files in which all lines end with CRLF in the repository itself."""
    listed = git(folder, "ls-files", "--eol", "-z", "--", *files)
    entries = [entry.split("\t", 1) for entry in names(listed)]
    return [name for about, name in entries if about.startswith("i/crlf ")]


def _paths(project: Project) -> list[str]:
    """Paths for `git ls-tree`, which takes no patterns; [] means the whole repository."""
    folder = project.folder.relative_to(project.top)
    if folder == Path("."):
        return []
    around = [above / ".gitignore" for above in folder.parents]
    main = os.path.relpath(project.main, project.top)
    return [folder.as_posix(), main, *(path.as_posix() for path in around)]


def _put_answers(project: Project, source: str, base: Answers, copy: Path) -> None:
    """Writes the rendered answers into the copy, if the committed ones differ."""
    own = {key: value for key, value in project.answers.items() if key.startswith("_")}
    own["_src_path"] = source
    answers = {key: value for key, value in base.items() if not key.startswith("_")}
    current = fingerprint(answers)
    is_same = {**answers, **own} == project.answers
    if is_same and own.get("_fingerprint", current) == current:
        return
    own["_fingerprint"] = current
    text = yaml.safe_dump({**own, **answers}, sort_keys=False, allow_unicode=True)
    blob = git_alone(copy, "hash-object", "-w", "--stdin", input=text).rstrip("\n")
    git_alone(copy, "update-index", "--cacheinfo", f"100644,{blob},{project.path}")


def _put_back_source(project: Project, source: str, answers: Path) -> None:
    """Keeps a relative path to the template, because it differs on other machines."""
    typed = project.answers["_src_path"]
    if typed != source:
        text = answers.read_text(encoding="utf-8")
        answers.write_text(
            text.replace(f"_src_path: {source}\n", f"_src_path: {typed}\n"),
            encoding="utf-8",
        )


def run_copier(project: Project, copy: Path, data: Answers, release: str) -> str:
    """Runs `copier update` in the scratch copy; returns the output of the template's programs.

    Raises:
        Refused: Copier failed; the last line of its output is the reason.
    """
    data_file = copy.with_name("data.yml")
    data_file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    folder = copy / project.folder.relative_to(project.top)
    return copier(
        *("update", f"--answers-file={project.file.name}", f"--data-file={data_file}"),
        *([f"--vcs-ref={release}"] if release else []),
        folder,
        cwd=project.top,
        scratch=copy.parent,
    )


def _refuse_rejects(copy: Path) -> None:
    """Makes sure that the copy has every edit of the team.

    Raises:
        Refused: Copier wrote .rej files, which happens if git hides a conflict from it.
    """
    new = names(git_alone(copy, "ls-files", "--others", "-z"))
    left = [name.removesuffix(".rej") for name in new if name.endswith(".rej")]
    if left:
        raise Refused(
            f"Copier could not apply edits of {first_of(left)}: please report it with the "
            "settings that git config --list --name-only shows"
        )


def unmerged(copy: Path) -> list[Stage]:
    """The versions of the files that have a conflict."""
    stages = []
    for entry in names(git_alone(copy, "ls-files", "--unmerged", "-z")):
        about, name = entry.split("\t", 1)
        mode, blob, number = about.split()
        stages.append(Stage(mode, blob, int(number), name))
    return stages


def resolve_layout(copy: Path) -> str:
    """Takes the new release's text for files in which the team changed only the layout.

    Returns the message about it.
    """
    files = Counter(stage.name for stage in unmerged(copy))
    reformatted = [
        name
        for name, versions in files.items()
        if name.endswith(".py")
        and versions == 3
        and task("layout").differ_in_layout_only(
            *(git_alone(copy, "show", f":{number}:{name}") for number in (1, 2))
        )
    ]
    if not reformatted:
        return ""
    paths = [f":(literal){name}" for name in reformatted]
    git_alone(copy, "checkout", "--theirs", "--", *paths)
    git_alone(copy, "add", "--force", "--", *paths)
    return (
        "These files had the layout of your formatter and now have the template's: run your "
        f"formatter again ({', '.join(reformatted)})\n"
    )


def switch_imports(updated: Project) -> str:
    """Switches all of a service's imports of modules that are now in the library.

    Returns the message about it, and about imports that a person must change.
    """
    if needed_version(updated.service / "workers") is None:
        return ""
    wiring = task("wire_lifespan")
    name, package = updated.answers["service"], updated.package
    switched, problems = [], []
    for path in sorted({*updated.modules(), updated.main}):
        if not path.is_file() or path.is_symlink() or is_machinery(path, updated):
            continue
        shown = os.path.relpath(path, updated.top)
        place = wiring.service_of(path, name, package, "")
        result = wiring.switch_imports(path.read_bytes(), place)
        if result.data is not None:
            path.write_bytes(result.data)
            switched.append(shown)
            # Once more, for problems with the new line numbers.
            result = wiring.switch_imports(result.data, place)
        problems += [f"  {shown}:{problem}" for problem in result.problems]
    messages = ""
    if switched:
        files = ", ".join(switched)
        messages += f"These files now import from chancy_runtime: {files}\n"
    if problems:
        messages += "These imports no longer work, and you must change them:\n"
        messages += "".join(f"{problem}\n" for problem in problems)
    return messages


def is_machinery(path: Path, project: Project) -> bool:
    """Whether a file is an edited module of a release before v0.5.0, which was kept."""
    mine = path.parent == project.service / "workers"
    return mine and bool(OLD_MODULE.match(path.name))


def take_over(copy: Path, top: Path) -> tuple[list[str], list[str]]:
    """Writes the copy's changes into the backend; returns all changed files and the conflicts.

    All steps that can fail come first and write beside the files. Then each file is replaced
    in one step.

    Raises:
        Refused: Git ignores a new file, or a file cannot be written; nothing was changed.
    """
    changed = names(
        git_alone(copy, "diff", "--name-only", "--no-renames", "-z", "HEAD")
    )
    new = names(git_alone(copy, "ls-files", "--others", "-z"))
    refuse_ignored(top, new)
    stages = unmerged(copy)
    conflicts = list(dict.fromkeys(stage.name for stage in stages))
    touched = sorted({*changed, *new})
    _refuse_hidden(top, touched)
    beside: dict[Path, Path] = {}
    try:
        for name in touched:
            if (copy / name).is_file():
                _write_beside(copy / name, top / name, beside)
        if conflicts:
            _mark_unmerged(copy, top, stages)
    except BaseException as error:
        for path in beside.values():
            _delete(path)
        if isinstance(error, OSError):
            raise Refused(
                f"{error.filename} cannot be written ({error.strerror}): correct that, then "
                "run this again"
            ) from error
        raise
    try:
        for name in touched:
            if top / name in beside:
                beside[top / name].replace(top / name)
            else:
                _delete(top / name)
    except OSError as error:
        for path in beside.values():
            _delete(path)
        file = error.filename2 or error.filename
        reason = f"{file} cannot be replaced ({error.strerror})"
        try:
            _take_back(copy, top, touched)
        except (OSError, Refused) as more:
            raise Refused(
                f"{reason}, and files that were replaced before could not be restored "
                f'({more}): README, "Stay current", has the command that undoes it'
            ) from error
        raise Refused(f"{reason}: correct that, then run this again") from error
    return touched, conflicts


def _refuse_hidden(top: Path, touched: Sequence[str]) -> None:
    """Makes sure that git shows changes of these files.

    Raises:
        Refused: git does not check one for changes, so it may have an edit of the team.
    """
    shown_again = task("refuse_update").shown_again
    for entry in names(git(top, "ls-files", "-v", "-z")):
        mark, name = entry.split(" ", 1)
        if name in touched and (command := shown_again(mark, name, "-C", str(top))):
            raise Refused(
                f"git does not check {name} for changes, but this update changes it, so edits "
                f"of it would be lost: {command}, then run this again"
            )


def _take_back(copy: Path, top: Path, touched: Sequence[str]) -> None:
    """Restores the committed files of the backend, and git's index."""
    committed = set(
        names(git_alone(copy, "ls-tree", "-r", "-z", "--name-only", "HEAD"))
    )
    for name in touched:
        if name not in committed:
            _delete(top / name)
    paths = [f":(literal){name}" for name in touched if name in committed]
    git(top, "checkout", "HEAD", "--", *paths)


def _write_beside(source: Path, target: Path, beside: dict[Path, Path]) -> None:
    """Writes a file's replacement beside it, with its line endings and its mode.

    Args:
        beside: Gets the path of the replacement, by the path of the file.
    """
    content = source.read_bytes()
    if target.is_file() and b"\r\n" in target.read_bytes() and b"\r\n" not in content:
        content = content.replace(b"\n", b"\r\n")
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    with new.open("xb") as stream:
        beside[target] = new
        stream.write(content)
    shutil.copymode(target if target.is_file() else source, new)


def _delete(path: Path) -> None:
    """Deletes a file if it exists, and the folders that become empty."""
    path.unlink(missing_ok=True)
    for folder in path.parents:
        try:
            folder.rmdir()
        except OSError:
            break


def _mark_unmerged(copy: Path, top: Path, stages: Sequence[Stage]) -> None:
    """Records the conflicts in git's index like a merge, for git status and git mergetool."""
    conflicts = {stage.name for stage in stages}
    crlf = with_crlf(top, [f":(literal){name}" for name in conflicts])
    written = ""
    for stage in stages:
        content = subprocess.run(
            ["git", "cat-file", "blob", stage.blob],
            cwd=copy,
            check=True,
            capture_output=True,
        ).stdout
        file = copy.with_name("blob")
        if stage.name in crlf:
            content = content.replace(b"\n", b"\r\n")
        file.write_bytes(content)
        blob = git(top, "hash-object", "-w", "--no-filters", file).rstrip("\n")
        written += f"{stage.mode} {blob} {stage.number}\t{stage.name}\0"
    gone = "".join(f"0 {'0' * 40}\t{name}\0" for name in conflicts)
    git(top, "update-index", "-z", "--index-info", input=gone + written)
