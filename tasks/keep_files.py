"""Keeps a team's files through an update; Copier runs it after each update.

    python keep_files.py ANSWERS_FILE WORKERS_FOLDER TEMPLATE RELEASE

Copier deletes the files of a job, a dashboard or a deployment that was taken out of the
answers. It brings back files that the team deleted or moved, and it deletes files that the
template no longer has, even if the team edited them. HEAD has all of these files, because
Copier updates only a committed tree. The template's repository has the previous release; its
files without Jinja are equal to the rendered ones. Every update runs this program, so
modules that only few updates need are imported where they are used.
"""

import os
import re
import subprocess
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

JINJA = ".jinja"
LINK = "120000"
# Set by chancy-workers, which switches old imports itself and then reports those that are left.
SWITCHES = "CHANCY_WORKERS_SWITCHES_IMPORTS"
# The name of a module that is now in the library, or another name that starts like one.
MACHINERY = re.compile(rb"\bchancy_(?!initialization|instance|runtime)\w")
# A file's mode and its object.
Blob = tuple[str, str]
# What a service writes instead of an edit in a module that is now in the library.
INSTEAD = {
    "app": "build a subclass of Chancy in create_chancy()",
    "children": "name a subclass of ProcessExecutor in Queue(executor=…)",
    "cron": "put a subclass of Cron into plugins=[…]",
    "database": "pass a URL or a function of your own to Chancy(…) in create_chancy()",
    "executors": "name a subclass of the executor in Queue(executor=…)",
    "feeding": "name a subclass of ProcessExecutor in Queue(executor=…)",
    "health": "include a router of your own that awaits find_problems(get_chancy)",
    "leadership": "put a subclass of Leadership into plugins=[…]",
    "maintenance": "put Pruner(…) or Recovery(…) with your arguments into plugins=[…]",
    "queues": "call a function of your own after declare_queues()",
    "router": "include a router of your own whose lifespan enters initialize_workers()",
    "sentry": "put a subclass of SentryPlugin into plugins=[…]",
    "settings": "pass other values to Settings(…)",
    "start": "call a check of your own after check_database()",
    "worker": "enter a subclass of Worker in initialize_workers()",
}
ELSE = "open an issue at the template's repository"


def main(answers_file: str, workers: str, template: str, release: str) -> None:
    """Restores files in the current folder and reports what happened to them."""
    ignore_pathspec_settings()
    merge_again(workers)
    old = answers_of(git("show", f"HEAD:./{answers_file}"))
    new = answers_of(Path(answers_file).read_text(encoding="utf-8"))
    before, after = jobs_of(old), jobs_of(new)
    files = tree_of("HEAD", ".")
    removed = [job for job in before if job not in after]
    added = [job for job in after if job not in before]
    kept = [job for job in removed if restore_job(job, workers, files)]
    for job in before:
        if job in after:
            delete_brought_back(job, workers, files)
    report_removed(kept, added, workers)
    report_moved(before, after, workers)
    report_dashboard(old, new, workers)
    report_deploy(old, new)
    restore_switched_off(old, new, workers, files)
    rendered = rendered_files(tree_of(release, "template", "-C", template), workers)
    restore_edited(files, rendered, template)
    report_links(files, rendered)
    report_ignored(workers)
    if SWITCHES not in os.environ:
        report_imports(answers_file, workers)


def ignore_pathspec_settings() -> None:
    """Removes git's *_PATHSPECS variables from the environment; editors set them."""
    for name in [name for name in os.environ if name.endswith("_PATHSPECS")]:
        del os.environ[name]


def tree_of(commit: str, folder: str, *where: str) -> dict[str, Blob]:
    """The committed files below a folder, by name.

    Args:
        where: Options for git that select another repository.
    """
    listed = git(*where, "ls-tree", "-r", "-z", commit, f"{folder}/")
    entries = [entry.split("\t", 1) for entry in listed.split("\0") if entry]
    return {name: (about.split()[0], about.split()[2]) for about, name in entries}


def rendered_files(tree: Mapping[str, Blob], workers: str) -> dict[str, Blob]:
    """The template's files by their rendered names with .jinja, except files of jobs."""
    found = {}
    for name, blob in tree.items():
        if "scope == 'backend'" in name and workers == "workers":
            continue
        below = name.removeprefix("template/").replace(
            "{{ service_root }}/workers", workers
        )
        below = below.replace("{{ service_root }}", str(Path(workers).parent))
        below = re.sub("{% if .*? %}(.*?){% endif %}", r"\1", below)
        if "{" not in below:
            found[os.path.normpath(below)] = blob
    return found


def answers_of(text: str) -> dict[str, Any]:
    answers: dict[str, Any] = yaml.safe_load(text) or {}
    return answers


def jobs_of(answers: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The jobs in the answers; each with its queue and "def" or "async def"."""
    queues = dict(map(named, answers.get("queues") or []))
    found = {}
    for name, job in map(named, answers.get("jobs") or []):
        queue = job.get("queue", "default")
        executor = queues.get(queue, {}).get("executor", "async")
        found[name] = (queue, "async def" if executor == "async" else "def")
    return found


def named(item: Any) -> tuple[str, dict[str, Any]]:
    """The name and the options of a job or a queue; a bare name has no options."""
    return (item, {}) if isinstance(item, str) else (item["name"], item)


def restore_job(job: str, workers: str, files: Mapping[str, object]) -> bool:
    """Brings the committed files of a job back; returns whether it has a worker.py."""
    test = f"{workers}/tests/test_job_{job}.py"
    restore(
        name for name in files if name.startswith(f"{workers}/{job}/") or name == test
    )
    return f"{workers}/{job}/worker.py" in files


def restore(names: Iterable[str]) -> list[str]:
    """Brings committed files back; returns those that were missing."""
    gone = [name for name in names if not os.path.lexists(name)]
    if gone:
        hooks = ("-c", f"core.hooksPath={os.devnull}")
        git(*hooks, "checkout", "HEAD", "--", *(f":(literal){name}" for name in gone))
    return gone


def delete_brought_back(job: str, workers: str, files: Container[str]) -> None:
    """Deletes files of a job that Copier brought back after the team removed them."""
    for name in (
        f"{workers}/{job}/__init__.py",
        f"{workers}/{job}/worker.py",
        f"{workers}/tests/test_job_{job}.py",
    ):
        path = Path(name)
        if name not in files and path.is_file():
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def report_removed(kept: list[str], added: list[str], workers: str) -> None:
    """Reports jobs that are no longer registered, and how to finish a renaming."""
    for job in kept:
        print(
            f"The job {job} was removed from the answers and is no longer registered. "
            f"{workers}/{job} and its test stay, so that queued jobs still run. "
            "Delete them when no such job is queued."
        )
    if len(kept) == len(added) == 1:
        print(
            f"Was {kept[0]} renamed? {workers}/{added[0]}/worker.py is new: move the body "
            f"of {workers}/{kept[0]}/worker.py there."
        )


def report_moved(
    before: dict[str, tuple[str, str]], after: dict[str, tuple[str, str]], workers: str
) -> None:
    """Reports what the team must change in its worker.py files."""
    for job in before:
        if after.get(job, before[job]) == before[job]:
            continue
        queue, kind = after[job]
        print(
            f"In the answers the job {job} is now on the queue {queue}, which runs "
            f"{'coroutines' if kind == 'async def' else 'plain functions'}. An update does "
            f'not edit its file: write @job(queue="{queue}") and {kind} in '
            f"{workers}/{job}/worker.py."
        )


def report_dashboard(
    before: Mapping[str, Any], after: Mapping[str, Any], workers: str
) -> None:
    """Reports what the team's own app must now include, or no longer include."""
    was, now = (answers.get("dashboard", "none") for answers in (before, after))
    main = Path(workers).parent / after.get("main", "main.py")
    if was == now or not main.is_file():
        return
    name = f"{after['service']}_dashboard"
    package = after.get("package", f"app.{after['service']}")
    includes = b"workers.dashboard" in main.read_bytes()
    if now == "in_api" and not includes:
        print(
            f"The dashboard is now in the API: include it in {main}, after the app is made:\n\n"
            f"    from {package}.workers.dashboard import router as {name}\n\n"
            f"    app.include_router({name})\n"
        )
    elif was == "in_api" and includes:
        print(
            f"The dashboard is no longer in the API: remove its import and include_router() "
            f"from {main}."
        )
    if now != "none" and after.get("dashboard_secret"):
        print(f"Its sessions need a table: run python -m {package}.workers migrate.")


def report_deploy(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Reports what a service needs that the template's files now deploy."""
    was, now = (answers.get("deploy", "none") for answers in (before, after))
    if was != "none" or now == "none":
        return
    if after.get("scope") == "backend" and after.get("deploy_folder") == "deploy":
        print(
            "Your files for Docker at the root stay as they are; the template's are in "
            "deploy/."
        )
    print(
        "The workers' pools now fit the pooler. Pools in your own files, such as main.py, "
        "stay as they are: chancy-workers check adds up all of them, and lists what else the "
        "deployment needs."
    )


def restore_switched_off(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    workers: str,
    files: Mapping[str, object],
) -> None:
    """Brings back files that a changed answer removed, because the team may have edited them."""
    off = [
        answer
        for answer in ("dashboard", "deploy")
        if before.get(answer, "none") != "none" == after.get(answer, "none")
    ]
    if not off:
        return
    import shlex

    from refuse_update import is_deployment

    rendered = {
        "dashboard": lambda name: name == f"{workers}/dashboard.py",
        "deploy": is_deployment,
    }
    for answer in off:
        if kept := restore(sorted(filter(rendered[answer], files))):
            print(
                f"The answer {answer} is now none. Its files stay, because they may hold your "
                f"work; when nothing needs them: git rm {shlex.join(kept)}"
            )


def restore_edited(
    files: Mapping[str, Blob], rendered: Mapping[str, Blob], template: str
) -> None:
    """Brings back edited files that Copier deleted, and reports them."""
    for name, (_, blob) in sorted(files.items()):
        if name not in rendered or blob == rendered[name][1] or os.path.lexists(name):
            continue
        from layout import differ_in_layout_only

        last = git_bytes("-C", template, "cat-file", "blob", rendered[name][1])
        team = git_bytes("cat-file", "blob", blob)
        if name.endswith(".py") and differ_in_layout_only(
            last.decode(errors="replace"), team.decode(errors="replace")
        ):
            continue
        restore([name])
        print(
            f"The template no longer has {name}, which stays because you edited it: ",
            end="",
        )
        if machinery := re.fullmatch(r"chancy_(\w+)\.py", Path(name).name):
            instead = INSTEAD.get(machinery[1], ELSE)
            print(
                "chancy_runtime replaces it, and nothing imports it any more. Instead of the "
                f"edit, {instead}, then delete the file."
            )
        else:
            print("keep the parts about your own code, then delete the rest.")


def merge_again(workers: str) -> None:
    """Merges files with conflicts in a second way, which may have no conflict."""
    stages: dict[str, int] = {}
    listed = git("ls-files", "--unmerged", "-z", "--", f":(literal){workers}")
    for entry in filter(None, listed.split("\0")):
        name = entry.split("\t", 1)[1]
        stages[name] = stages.get(name, 0) + 1
    for name in (name for name, number in stages.items() if number == 3):
        base, team, new = (git_bytes("show", f":{n}:./{name}") for n in (1, 2, 3))
        merged, conflicts = merge_otherwise(Path(name).name, base, team, new)
        if merged:
            Path(name).write_bytes(merged)
        if merged and not conflicts:
            hooks = ("-c", f"core.hooksPath={os.devnull}")
            git(*hooks, "reset", "--quiet", "--", f":(literal){name}")


def merge_otherwise(
    name: str, base: bytes, team: bytes, new: bytes
) -> tuple[bytes, int]:
    """Another merge and its number of conflicts; (b"", 0) if it is not possible."""
    if team.startswith(base):
        return new + team[len(base) :], 0
    if name != "chancy_initialization.py" or b"\r" in team:
        return b"", 0
    import tempfile

    from merge_imports import with_library

    try:
        switched = with_library(base.decode(), team.decode(), new.decode())
    except UnicodeDecodeError:
        return b"", 0
    if switched is None:
        return b"", 0
    base, team = (text.encode() for text in switched)
    with tempfile.TemporaryDirectory() as folder:
        return merge(Path(folder), team, base, new)


def merge(folder: Path, team: bytes, base: bytes, new: bytes) -> tuple[bytes, int]:
    """git's merge with Copier's conflict markers, and the number of conflicts."""
    labels = ("before updating", "last update", "after updating")
    options = [option for label in labels for option in ("-L", label)]
    paths = []
    for label, content in zip(labels, (team, base, new), strict=True):
        paths.append(str(folder / label))
        Path(paths[-1]).write_bytes(content)
    command = ["git", "merge-file", "--stdout", *options, *paths]
    result = subprocess.run(command, capture_output=True)
    return result.stdout, result.returncode


def report_imports(answers_file: str, workers: str) -> None:
    """Lists imports of modules that are now in the library, with their replacements."""
    answers = yaml.safe_load(Path(answers_file).read_text(encoding="utf-8"))
    found = [*old_imports(answers, workers)]
    if found:
        print(
            "These imports no longer work, because the modules are now in chancy_runtime. "
            "Replace each with the text on its right (chancy-workers update does it for you):"
        )
        print(*found, sep="\n")


def old_imports(answers: Mapping[str, Any], workers: str) -> Iterator[str]:
    """Imports of such modules in the service's files and in the file with its app."""
    service = Path(workers).parent
    package = answers.get("package", f"app.{answers['service']}")
    listed = git("ls-files", "-z", "-co", "--exclude-standard", "--", f"{service}/*.py")
    main = os.path.normpath(service / str(answers.get("main", "main.py")))
    for name in sorted({*listed.split("\0"), main}):
        path = Path(name)
        if path.parent == Path(workers) and MACHINERY.match(path.name.encode()):
            continue  # An edited old module, which the team deletes later.
        if name and path.is_file() and MACHINERY.search(data := path.read_bytes()):
            import wire_lifespan as wiring

            place = wiring.service_of(path.resolve(), answers["service"], package, "")
            for each in wiring.find_old_imports(data, place):
                yield f"  {name}:{each.line}: {each.text} -> {each.write}"


def report_links(files: Mapping[str, Blob], rendered: Mapping[str, Blob]) -> None:
    """Reports links, because Copier changes neither a link nor the file behind it."""
    for name, (mode, _) in files.items():
        is_rendered = name in rendered or f"{name}{JINJA}" in rendered
        if mode == LINK and is_rendered and Path(name).name != "main.py":
            print(
                f"{name} is a link and stays one, so the file that it points to does not "
                "get the release's changes."
            )


def report_ignored(workers: str) -> None:
    """Reports new files that git ignores, because clones would not have them."""
    listed = git(
        *("ls-files", "-z", "--full-name", "--others", "--ignored"),
        *("--exclude-standard", "--", f":(glob){workers}/**/*.py"),
    )
    if listed:
        import shlex

        names = " ".join(map(shlex.quote, filter(None, listed.split("\0"))))
        print(f"Git ignores {names}, so clones will not have them: git add -f {names}")


def git(*arguments: str) -> str:
    return git_bytes(*arguments).decode()


def git_bytes(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], check=True, capture_output=True).stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
