"""The parts of a service that adopt carries over, and those for which it refuses."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from chancy_workers.adopt import write_all

from .adoptions import BILLING, adopt, contents, settle
from .support import COPIER, GIT, PROGRAM, commit, environment, run

FILE = Path("workers", "chancy_initialization.py")
SECRET = 'get_secret_value("POSTGRES-SUPABASE-SESSION-POOLER-URL")'
OURS = "from .chancy_queues import ours\n"
DECLARE = "        # Declare queues\n"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """The service's folder in the backend of the house document."""
    return settle("document", tmp_path / "backend")


def rewrite(path: Path, *pairs: tuple[str, str]) -> None:
    """Replaces texts in a file, and commits."""
    text = path.read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    path.write_text(text)
    run(*GIT, "commit", "--quiet", "--all", "--message=rewritten", cwd=path.parent)


def refused(service: Path, template: Path, *options: str) -> str:
    """Adopt's error; makes sure that nothing is written, not even git's index."""
    root = service.parents[1]
    before = contents(root)

    result = adopt(root, template, *(options or ["--yes"]), check=False)

    assert result.returncode == 1, result.stdout
    assert contents(root) == before
    assert "Traceback" not in result.stderr
    assert result.stderr.endswith("Nothing is written.\n")
    return str(result.stderr)


# ----------------------------------------------------------------- what is carried over


@pytest.mark.parametrize(
    ("old", "new", "written"),
    [
        pytest.param(
            SECRET,
            'os.environ["database_url"]',
            None,
            id="a variable in lower case is refused",
        ),
        pytest.param(
            SECRET,
            'os.environ["DATABASE_URL"]',
            'DATABASE_SECRET = "DATABASE_URL"',
            id="a variable of the environment",
        ),
        pytest.param(
            "CHANCY_MAX_POOL_SIZE = 7",
            'CHANCY_MAX_POOL_SIZE = int(os.environ.get("POOL", "7"))',
            'CHANCY_MAX_POOL_SIZE = int(os.environ.get("POOL", "7"))',
            id="a computed pool size",
        ),
        pytest.param(
            "CHANCY_MAX_POOL_SIZE = 7",
            "CHANCY_MAX_POOL_SIZE = 7\nos.environ.setdefault('TZ', 'UTC')",
            '\nos.environ.setdefault("TZ", "UTC")\n',
            id="a statement that runs on import",
        ),
        pytest.param(
            "import os\n",
            "import os\n\nimport app.common  # noqa: F401  # for what it registers\n",
            "import app.common  # noqa: F401  # for what it registers\n",
            id="an import for its effects",
        ),
        pytest.param(
            "Cron(), SentryPlugin()]",
            "PatientCron(), SentryPlugin()]",
            "            Recovery(),\n            SentryPlugin(service=",
            id="a team's plugin that replaces Chancy's plugin",
        ),
        pytest.param(
            "        # Schedule cron jobs\n",
            "        await asyncio.gather(*(chancy.declare(each) for each in MORE))\n",
            '    Queue(\n        "two",\n        executor=Chancy.Executor.Process,\n',
            id="queues that are declared side by side",
        ),
        pytest.param(
            "Pruner()",
            "Pruner(Pruner.Rules.Age() > 2 * A_DAY)",
            "Pruner(\n                Pruner.Rules.Age() > 2 * A_DAY,\n            ),",
            id="an argument of the Pruner",
        ),
        pytest.param(
            "upsert=True",
            "",
            "        concurrency=20,\n        eager_polling=True,\n",
            id="a queue that is declared once",
        ),
        pytest.param(
            "Worker(chancy, register_signal_handlers=False)",
            "Worker(chancy)",
            "Worker(chancy, register_signal_handlers=False)",
            id="a Worker that took the signals",
        ),
        pytest.param(
            "Worker(chancy, register_signal_handlers=False)",
            'Worker(chancy, worker_id="one", queue_change_poll_interval=5)',
            '            worker_id="one",\n            queue_change_poll_interval=5,\n',
            id="arguments of a Worker that the library also takes",
        ),
        pytest.param(
            "Recovery(), ",
            "Rescue(), ",
            "class Rescue(ChancyRecovery):",
            id="a team's plugin with an alias for Chancy's plugin",
        ),
        pytest.param(
            "0 7 * * mon-fri",
            "0 7-7 * * mon-fri",
            'cron="0 7-7 * * mon-fri",',
            id="a schedule that the template refuses",
        ),
    ],
)
def test_it_is_carried_over(
    old: str, new: str, written: str | None, document: Path, released: Path
) -> None:
    more = """import asyncio
import os

from chancy.plugins.recovery import Recovery as ChancyRecovery

A_DAY = 86_400
MORE = [Queue("one"), Queue("two")]


class PatientCron(Cron):
    pass


class Rescue(ChancyRecovery):
    pass


CHANCY_MIN_POOL_SIZE"""
    rewrite(document / FILE, ("CHANCY_MIN_POOL_SIZE", more), (old, new))
    if written is None:
        assert "name the variable DATABASE_URL" in refused(document, released)
        return

    adopt(document.parents[1], released, "--yes")

    assert written in (document / FILE).read_text()
    run(
        *(
            sys.executable,
            "-c",
            "from app.billing.workers import chancy_initialization",
        ),
        cwd=document.parents[1],
    )


def test_arguments_without_an_effect_are_left_out_and_reported(
    document: Path, released: Path
) -> None:
    rewrite(
        document / FILE,
        ('prefix="billing_"', 'prefix="billing_", poll_reconnect_timeout=9'),
        ("no_default", "notifications=False, no_default"),
        ("Leadership()", "Leadership(poll_interval=15, timeout=30)"),
        ("Worker(chancy, ", "Worker(chancy, heartbeat_poll_interval=20, "),
    )

    printed = adopt(document.parents[1], released, "--yes").stdout

    text = (document / FILE).read_text()
    assert "leader_lease=30" in text
    for name in ("Leadership(poll", "heartbeat_poll", "notifications", "reconnect"):
        left_out = f"^ .*{re.escape(name)}.* left out"
        assert re.search(left_out, printed, re.MULTILINE), printed
        assert name not in text


def test_a_tag_stays_a_pattern_if_it_also_matches_other_workers(
    tmp_path: Path, released: Path
) -> None:
    service = settle("tags", tmp_path / "backend")
    adopt(service.parents[1], released, "--yes")

    text = (service / FILE).read_text()
    assert '        tags={"mail"},\n        eager_polling' in text  # also mail-big
    assert '        tags={"^reports$"},\n        eager_polling' in text


def test_a_file_with_another_encoding_and_other_line_endings_is_read(
    document: Path, released: Path
) -> None:
    text = (
        (document / FILE).read_text().replace("CHANCY_MIN", 'NAME = "é"\nCHANCY_MIN', 1)
    )
    text = text.replace("Queue(", "Queue(concurrency=len(NAME), name=").replace(
        "concurrency=20, ", ""
    )
    coded = f"# -*- coding: latin-1 -*-\n{text}".replace("\n", "\r\n").encode("latin-1")
    (document / FILE).write_bytes(coded)
    commit(document.parents[1])

    command = [*map(str, (PROGRAM, "adopt", BILLING, "--template", released, "--yes"))]
    root = document.parents[1]
    done = subprocess.run(command, cwd=root, env=environment(), capture_output=True)

    assert done.returncode == 0, done.stderr
    assert '-NAME = "é"\r\n'.encode("latin-1") in done.stdout
    assert 'NAME = "é"\n' in (document / FILE).read_text()


def test_imports_in_other_files_still_work(tmp_path: Path, released: Path) -> None:
    service = settle("constants", tmp_path / "backend")
    adopt(service.parents[1], released, "--yes")

    code = (
        "from app.billing.reports import hours, schedule\n"
        "assert (hours(), schedule()) == (12, '5 * * * *')"
    )
    run(sys.executable, "-c", code, cwd=service.parents[1])


def test_the_file_that_enters_the_workers_becomes_the_answer_main(
    document: Path, released: Path
) -> None:
    root = document.parents[1]
    text = (
        (document / "main.py")
        .read_text()
        .replace("from .workers", "from .billing.workers")
    )
    (root / "app" / "main.py").write_text(text)
    (document / "main.py").unlink()
    commit(root)

    adopt(root, released, "--yes")

    answers = yaml.safe_load((document / ".copier-answers.yml").read_text())
    assert answers["main"] == "../main.py"
    assert not (document / "main.py").exists()
    assert (root / "app" / "main.py").read_text() == text


# -------------------------------------------------------------------- what cannot be read


def test_every_part_that_cannot_be_read_is_reported(
    tmp_path: Path, released: Path
) -> None:
    service = settle("unreadable", tmp_path / "backend")

    printed = refused(service, released)

    for line, what, way_out in [
        (19, "`os.environ['PREFIX']`", "write it as a text"),
        (25, "`chancy.migrate()`", "python -m app.billing.workers migrate does it"),
        (26, "`os.environ['QUEUES'].split(',')`", "write the list out"),
        (28, "`os.environ.get('CRON')`", "remove the condition"),
        (30, "`chancy.push(send_digest)`", "move it into main.py's lifespan"),
        (31, "`2`: Worker(… backoff_max=…)", "remove it"),
    ]:
        assert f"chancy_initialization.py, line {line}: {what}" in printed
        assert way_out in printed


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("def initialize_workers", "def start", "no `async def initialize_workers()`"),
        (
            "workers() ->",
            "workers(app) ->",
            "`initialize_workers` … takes no arguments",
        ),
        ("            yield", "            yield chancy", "`chancy` … yields nothing"),
        ("            yield", "            pass", "yields 0 times"),
        (SECRET, '"postgresql://u:hunter2@h/d"', "the URL is written in the code"),
        (SECRET, 'f"postgresql://u:hunter2@{h}/d"', "the URL is written in the code"),
        (SECRET, '__import__("os").environ["X"]', "write such a function"),
        (SECRET, 'await get_secret_value("A")', "write such a function"),
        (SECRET, "settings.url", "write such a function"),
        (SECRET, 'get_secret_value("A", "B")', "write such a function"),
        ('prefix="billing_"', "prefix=PREFIX", "`PREFIX` … write it as a text"),
        (
            "no_default_plugins=True",
            "no_default_plugins=bool(1)",
            "write it as a value",
        ),
        ('prefix="billing_"', "sharding=3", "Chancy(… sharding=…) … remove it"),
        ("Recovery()", "*others()", "it is not a list … write it out"),
        ("Recovery()", "recovery", "`recovery` … write its call into the list"),
        ("Recovery()", "Recovery(pace=LOST)", "the arguments of Chancy … LOST"),
        ('Queue("default"', "Queue(NAME", "its name is known only at run time"),
        ("concurrency=20", "concurrency=chancy.limit", "the rendered file makes its"),
        (
            "concurrency=20",
            "concurrency=LOST",
            "the queues … LOST cannot be determined",
        ),
        ('"0 7 * * mon-fri"', "CRON", "its schedule or … write them as texts"),
        ("send_digest.job", "*JOBS, send_digest.job", "its schedule or … each job by"),
        ("_worker:", "_worker, lock():", "`lock()` … move it into main.py's lifespan"),
        (
            DECLARE,
            "        await seed(chancy)\n",
            "`seed(chancy)` … main.py's lifespan",
        ),
        (DECLARE, "        global x\n", "`global x` … main.py's lifespan"),
        (DECLARE, "        x = await seed()\n", "`x = await seed()` … main.py's"),
        (DECLARE, "        other = Chancy('x')\n", "keep one Chancy for each service"),
        (
            "CHANCY_MIN",
            "for x in y: pass\nCHANCY_MIN",
            "line 17: it runs when the file is imported",
        ),
        (
            "set_chancy(chancy)",
            "set_chancy(chancy) = 3",
            "cannot be parsed as Python (cannot assign",
        ),
    ],
)
def test_it_is_reported_with_a_way_out(
    old: str, new: str, words: str, document: Path, released: Path
) -> None:
    rewrite(document / FILE, (old, new))

    printed = refused(document, released)

    for part in words.split(" … "):
        assert part in printed, printed
    assert "hunter2" not in printed


@pytest.mark.parametrize(
    ("imported", "words"),
    [
        (
            "from .workers.chancy_initialization import chancy",
            "call get_chancy() instead",
        ),
        (
            "from .workers.chancy_initialization import declare_queues",
            "has another one: give yours another name",
        ),
        ("from .workers.chancy_instance import _chancy", "get_chancy() instead"),
    ],
)
def test_an_import_in_another_file_that_would_break_is_reported(
    imported: str, words: str, tmp_path: Path, released: Path
) -> None:
    service = settle("top_level", tmp_path / "backend")
    (service / "views.py").write_text(f"{imported}\n")
    commit(service.parents[1])

    assert words in refused(service, released)


# ------------------------------------------------------------------ what is not changed


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (
            lambda s: shutil.rmtree(s.parents[1] / ".git"),
            "is not in a git repository … commit it",
        ),
        (lambda s: (s / "new.py").touch(), "not committed … ?? app/billing/new.py"),
        (
            lambda s: (s / "main.py").write_text(""),
            "not committed … M app/billing/main.py",
        ),
        (lambda s: (s / FILE).unlink(), "no workers to adopt … copier copy"),
        (lambda s: shutil.rmtree(s), "is not a folder: name the folder of the service"),
        (
            lambda s: (s / ".copier-answers.yml").touch(),
            "already rendered … copier update",
        ),
        (
            lambda s: (s.parents[1] / "pyproject.toml").write_text(
                '[project]\ndependencies = ["fastapi==0.110"]\n'
            ),
            "pyproject.toml: fastapi==0.110 allows no version of fastapi … raise it",
        ),
    ],
)
def test_a_service_that_cannot_be_adopted_is_not_changed(
    prepare: Callable[[Path], object], words: str, document: Path, released: Path
) -> None:
    prepare(document)

    printed = refused(document, released)

    for part in words.split(" … "):
        assert part in printed, printed


@pytest.mark.parametrize(
    "name", ["tests/test_workers.py", "tests/conftest.py", "__main__.py"]
)
def test_a_rendered_file_does_not_replace_the_team_s_file_of_that_name(
    name: str, document: Path, released: Path
) -> None:
    (document / "workers" / name).write_text("ours = True\n")
    commit(document.parents[1])

    printed = refused(document, released)

    assert f"workers/{name}: the file: the template has a file of the sam" in printed
    assert "git mv" in printed


def test_a_team_s_module_may_have_a_name_that_starts_with_chancy(
    document: Path, released: Path
) -> None:
    path = document / "workers" / "chancy_queues.py"
    path.write_text("def ours(): ...\n")
    rewrite(
        document / FILE, ("Pruner()", "Pruner(ours())"), ("CHANCY_M", f"{OURS}CHANCY_M")
    )
    commit(document.parents[1])

    adopt(document.parents[1], released, "--yes")

    assert path.read_text() == "def ours(): ...\n"
    assert (
        "from app.billing.workers.chancy_queues import" in (document / FILE).read_text()
    )


def test_a_link_is_not_replaced(document: Path, released: Path) -> None:
    path = document / "workers" / "chancy_instance.py"
    path.rename(document / "instance.py")
    path.symlink_to("../instance.py")
    commit(document.parents[1])

    assert "chancy_instance.py would be replaced, but is a link" in refused(
        document, released
    )


def test_a_file_that_git_ignores_is_not_replaced(
    document: Path, released: Path
) -> None:
    root = document.parents[1]
    (root / ".gitignore").write_text("chancy_instance.py\n")
    run("git", "rm", "--quiet", "--cached", "-r", "app", cwd=root)
    run("git", "add", "--all", cwd=root)
    run(*GIT, "commit", "--quiet", "--message=ignored", cwd=root)

    assert "would be replaced, but git ignores it" in refused(document, released)


def test_a_missing_template_is_reported(document: Path, tmp_path: Path) -> None:
    assert "cannot be rendered" in refused(document, tmp_path / "none")


# ------------------------------------------------------------------- shown, asked, written


def test_without_a_terminal_nothing_is_written_without_yes(
    document: Path, released: Path
) -> None:
    before = contents(document)
    result = adopt(document.parents[1], released, check=False)

    assert result.returncode == 1
    assert "add --yes" in result.stderr
    assert contents(document) == before


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("", 1), ("no", 1)])
def test_the_difference_is_shown_before_the_question(
    answer: str, status: int, document: Path, released: Path
) -> None:
    before = contents(document)
    terminal, child_end = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "adopt", BILLING, "--template", released],
        cwd=document.parents[1],
        env=environment(TERM="xterm"),
        stdin=child_end,
        stdout=child_end,
        stderr=child_end,
    )
    os.close(child_end)
    shown = b""
    while process.poll() is None or select.select([terminal], [], [], 0)[0]:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            break
        if shown.endswith(b"[y/N] "):
            os.write(terminal, f"{answer}\n".encode())
            shown += b"\n"

    assert process.wait(60) == status, shown.decode()
    assert b"-chancy = Chancy(" in shown or b"-    chancy = Chancy(" in shown
    assert b"new files in" in shown
    assert (contents(document) == before) is bool(status)


def test_applying_the_printed_patch_has_the_same_result(
    tmp_path: Path, released: Path
) -> None:
    services = [settle("secrets", tmp_path / name) for name in ("patched", "adopted")]
    roots = [service.parents[1] for service in services]
    before = contents(roots[0])

    patch = adopt(roots[0], released, "--diff").stdout
    assert contents(roots[0]) == before

    (tmp_path / "patch").write_text(patch)
    run("git", "apply", tmp_path / "patch", cwd=roots[0])
    adopt(roots[1], released, "--yes")
    assert contents(roots[0]) == contents(roots[1])


def test_a_write_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("old")
    (tmp_path / "file").write_text("no folder")
    before = contents(tmp_path)

    with pytest.raises(OSError):
        write_all(
            {
                tmp_path / "old.py": b"new",
                tmp_path / "new.py": b"new",
                tmp_path / "file" / "late.py": b"new",
            }
        )

    assert contents(tmp_path) == before


# -------------------------------------------------------------------- after an adoption


def test_an_update_after_an_adoption_changes_only_the_release(
    tmp_path: Path, released: Path
) -> None:
    first = tmp_path / "first"
    run("git", "clone", "--quiet", "--branch=v0.1.0", released, first, cwd=tmp_path)
    run("git", "tag", "--delete", "v0.1.1", cwd=first)
    for name in ("cron", "own_ways", "names"):
        service = settle(name, tmp_path / name)
        root = service.parents[1]
        adopt(root, first, "--yes")
        answers = service / ".copier-answers.yml"
        answers.write_text(answers.read_text().replace(str(first), str(released)))
        commit(root)
        before = contents(root)

        run(*COPIER, "update", "--trust", "--defaults", service, cwd=root)

        after = contents(root)
        assert before.keys() == after.keys()
        assert {each for each in after if after[each] != before[each]} == {
            str(answers.relative_to(root))
        }
        assert yaml.safe_load(answers.read_text())["_commit"] == "v0.1.1"


def test_a_second_adoption_is_refused(document: Path, released: Path) -> None:
    adopt(document.parents[1], released, "--yes")
    commit(document.parents[1])

    assert "is already rendered" in refused(document, released)


def test_adding_a_job_does_not_change_the_adopted_jobs(
    tmp_path: Path, released: Path
) -> None:
    service = settle("cron", tmp_path / "backend")
    root = service.parents[1]
    adopt(root, released, "--yes")
    commit(root)
    jobs = yaml.safe_load((service / ".copier-answers.yml").read_text())["jobs"]
    jobs.append({"name": "tidy", "schedule": "0 4 * * *"})

    run(
        *(*COPIER, "update", "--trust", "--defaults", "--vcs-ref=:current:"),
        *("-d", f"jobs={jobs}", service),
        cwd=root,
    )

    text = (service / FILE).read_text()
    assert "<<<<<<<" not in text
    code = (
        "from app.billing.workers.chancy_initialization import CRON_JOBS\n"
        "print(*(each.unique_key for each in CRON_JOBS))"
    )
    printed = run(sys.executable, "-c", code, cwd=root).stdout.split()
    assert sorted(printed) == sorted(
        ["digest:acme", "digest:globex", "digest:weekly", "clean_up_cron", "cron:tidy"]
    )
