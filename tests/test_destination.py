"""Where the template renders to, and which existing files it does not change."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .support import COPIER, SCHEDULED, TEMPLATE, commit, copy, environment, run

LISTINGS = Path(__file__).parent / "listings"


def files(folder: Path) -> list[str]:
    """Every file below a folder, without git's files and Python's caches."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not {".git", "__pycache__"} & set(path.parts)
    )


def answers(folder: Path) -> dict[str, object]:
    loaded: dict[str, object] = yaml.safe_load(
        (folder / ".copier-answers.yml").read_text()
    )
    return loaded


@pytest.fixture
def bare_backend(tmp_path: Path) -> Path:
    """A backend that this template did not render, with one service without workers."""
    folder = tmp_path / "backend"
    (folder / "app" / "billing").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("")
    return folder


@pytest.mark.parametrize("scope", ["backend", "service"])
def test_a_render_with_every_default_holds_these_files(
    scope: str, tmp_path: Path
) -> None:
    folder = tmp_path / "billing"
    copy(folder, "-d", f"scope={scope}", cwd=tmp_path)

    assert "\n".join(files(folder)) + "\n" == (LISTINGS / f"{scope}.txt").read_text()


def test_by_default_no_job_has_a_schedule_and_the_sample_job_shows_how_to_add_one(
    tmp_path: Path,
) -> None:
    copy("plain/billing", cwd=tmp_path)
    copy("scheduled/billing", *SCHEDULED, cwd=tmp_path)
    plain = tmp_path / "plain/billing/workers"
    text = (plain / "chancy_initialization.py").read_text()
    job = ast.parse((plain / "send_digest/worker.py").read_text())
    _, _, shown = (ast.get_docstring(job) or "").partition(
        "chancy_initialization.py:\n\n"
    )
    nothing = "CRON_JOBS: list[CronJob] = []"
    import_line = "from .send_digest.worker import send_digest\n"
    assert nothing in text and import_line not in text

    with_it = text.replace(nothing, f"CRON_JOBS = [\n{shown}\n]")

    expected = tmp_path / "scheduled/billing/workers/chancy_initialization.py"
    assert with_it == expected.read_text().replace(import_line, "")


def test_the_service_s_folder_can_be_given_as_any_kind_of_path(
    tmp_path: Path, released: Path
) -> None:
    renders = []
    for name in ("relative", "dot", "absolute"):
        root = tmp_path / name
        service = root / "app" / "billing"
        service.mkdir(parents=True)
        (root / "pyproject.toml").write_text("")
        if name == "relative":
            copy("app/billing", cwd=root, template=released)
        elif name == "dot":
            copy(".", cwd=service, template=released)
        else:
            copy(f"{service}/", cwd=tmp_path, template=released)
        assert answers(service)["package"] == "app.billing"
        assert answers(service)["service"] == "billing"
        renders.append({name: (service / name).read_bytes() for name in files(service)})

    assert renders[0] == renders[1] == renders[2]


@pytest.mark.parametrize(
    ("marker", "service", "package"),
    [
        (".git/HEAD", "billing", "billing"),
        ("requirements.txt", "services/app/billing", "services.app.billing"),
        ("pyproject.toml", "src/app/billing", "app.billing"),
    ],
)
def test_the_package_starts_at_the_root_of_the_backend(
    marker: str, service: str, package: str, tmp_path: Path
) -> None:
    (tmp_path / "backend" / marker).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "backend" / marker).touch()

    copy(f"backend/{service}", cwd=tmp_path)

    assert answers(tmp_path / "backend" / service)["package"] == package


APP = "from fastapi import FastAPI\n\napp = FastAPI()\n"


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (["app/billing/server.py"], "server.py"),
        (["app/billing/models.py", "app/main.py", "app/app.py"], "../main.py"),
        (["app/billing/routers/users.py", "asgi.py"], "../../asgi.py"),
    ],
)
def test_the_file_with_the_app_is_found_by_its_name_and_no_second_app_is_written(
    there: list[str], found: str, bare_backend: Path
) -> None:
    for name in there:
        (bare_backend / name).parent.mkdir(exist_ok=True)
        (bare_backend / name).write_text(APP)

    printed = copy("app/billing", cwd=bare_backend)

    service = bare_backend / "app" / "billing"
    assert answers(service)["main"] == found
    assert f"{Path(found).name} is wired" in printed.stdout
    assert f"{found} existed already; the lines above say whet" in printed.stderr
    assert not (service / "main.py").exists()


def test_if_tasks_are_skipped_the_closing_message_has_the_command_that_wires(
    tmp_path: Path,
) -> None:
    """The service is in a namespace package in a src layout, and its app in server.py."""
    service = tmp_path / "backend" / "src" / "acme" / "billing"
    service.mkdir(parents=True)
    (tmp_path / "backend" / "pyproject.toml").touch()
    (service / "server.py").write_text(APP)

    printed = copy(service, "-T", cwd=tmp_path / "backend").stderr

    lines = [line.strip() for line in printed.splitlines()]
    commands = [line.partition(" chancy-workers ")[2] for line in lines]
    assert "check src/acme/billing" in commands
    assert "wire src/acme/billing/server.py" in commands
    assert "server.py is unchanged, because tasks were skipped" in printed
    assert f"Next, from {tmp_path}/backend/src (" in printed
    # Without the option, pytest imports these modules as billing.workers.
    assert lines.count(
        "uv run python -m pytest -o consider_namespace_packages=true "
        "acme/billing/workers"
    )
    assert (service / "server.py").read_text() == APP


def test_a_python_that_is_too_old_is_reported_before_the_first_question(
    bare_backend: Path,
) -> None:
    packages = bare_backend / ".venv" / "lib" / "python3.9" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "_virtualenv.py").touch()

    printed = copy("app/billing", "-T", cwd=bare_backend).stderr

    before = printed.partition("The workers of billing")[0]
    assert f"The .venv of the backend {bare_backend} has Python 3.9: raise it" in before


def test_a_file_without_an_app_stays_as_it_is_and_the_lines_to_add_are_printed(
    bare_backend: Path,
) -> None:
    main = bare_backend / "app" / "billing" / "main.py"
    main.write_bytes(b"app = None  # \xe2\x82\xac, no newline at the end")

    printed = copy("app/billing", cwd=bare_backend)

    assert main.read_bytes() == b"app = None  # \xe2\x82\xac, no newline at the end"
    assert "main.py is left as it is" in printed.stdout


@pytest.mark.parametrize("scope", ["backend", "service"])
def test_an_update_changes_nothing_and_does_not_bring_main_back(
    scope: str, bare_backend: Path, tmp_path: Path, released: Path
) -> None:
    if scope == "backend":
        project = root = tmp_path / "rendered"
    else:
        root, project = bare_backend, bare_backend / "app" / "billing"
    copy(
        project,
        "-d",
        f"scope={scope}",
        "--vcs-ref=v0.1.0",
        cwd=root.parent,
        template=released,
    )
    main = root / "app" / "billing" / "main.py"
    main.rename(main.with_name("service.py"))
    worker = main.parent / "workers" / "send_digest" / "worker.py"
    worker.write_text(worker.read_text() + "\n# the team's\n")
    commit(root)
    before = {name: (root / name).read_bytes() for name in files(root)}

    run(*COPIER, "update", "--trust", "--defaults", project, cwd=root)

    after = {name: (root / name).read_bytes() for name in files(root)}
    changed = {
        name
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    }
    # A backend's pyproject.toml names the release from which the library is installed.
    named = [".copier-answers.yml"] + ["pyproject.toml"] * (scope == "backend")
    assert changed == {str((project / name).relative_to(root)) for name in named}
    assert all(b"v0.1.1" in (project / name).read_bytes() for name in named)


def test_a_second_service_uses_the_backend_s_functions_for_secrets_and_logging(
    tmp_path: Path,
) -> None:
    root = tmp_path / "backend"
    copy(root, "-d", "scope=backend", cwd=tmp_path)

    copy("app/shipping", cwd=root)

    service = root / "app" / "shipping"
    assert answers(service)["get_secret_value"] == "app.secret_values.get_secret_value"
    assert answers(service)["prefix"] == "shipping_"
    assert (
        "from app.observability import configure_logging"
        in (service / "main.py").read_text()
    )
    run(sys.executable, "-m", "ruff", "check", "--no-cache", ".", cwd=root)
    run(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", ".", cwd=root)


def test_enter_at_every_prompt_renders_the_same_as_the_defaults(
    bare_backend: Path, tmp_path: Path
) -> None:
    """A pty plays the terminal of a person who presses Enter; the app is in server.py."""
    import pty
    import select

    (bare_backend / "app" / "other").mkdir()
    for name in ("billing", "other"):
        (bare_backend / "app" / name / "server.py").write_text(APP)
    copy("app/other", "-d", "service=billing", cwd=bare_backend)
    terminal, child_end = pty.openpty()
    process = subprocess.Popen(
        [*COPIER, "copy", "--trust", "--vcs-ref=HEAD", str(TEMPLATE), "app/billing"],
        cwd=bare_backend,
        env=environment(TERM="xterm"),
        stdin=child_end,
        stdout=child_end,
        stderr=child_end,
    )
    os.close(child_end)
    shown = b""
    while process.poll() is None:
        ready, _, _ = select.select([terminal], [], [], 0.2)
        try:
            shown += os.read(terminal, 65536) if ready else b""
        except OSError:
            break
        if not ready:
            os.write(terminal, b"\r")
    assert process.wait(60) == 0, shown.decode()

    asked = answers(bare_backend / "app" / "billing")
    default = answers(bare_backend / "app" / "other")
    apart = {"package": "", "_commit": "", "_fingerprint": ""}
    assert {**asked, **apart} == {**default, **apart}
    assert asked["main"] == "server.py"
    assert not (bare_backend / "app" / "billing" / "main.py").exists()


HOST = "git.example.invalid/team/template.git"


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (f"https://x-access-token:ghp_hunter2@{HOST}", f"https://{HOST}"),
        (f"https://me@team:hunter2@x@{HOST}", f"https://{HOST}"),
        (f"git+https://{HOST}?private_token=hunter2", f"git+https://{HOST}"),
        (f"git+https://{HOST}?a=b#hunter2/@c", f"git+https://{HOST}"),
        (f"git+ssh://git@{HOST}", f"git+ssh://git@{HOST}"),
    ],
)
def test_a_token_in_the_template_s_url_is_not_kept(
    url: str, kept: str, tmp_path: Path
) -> None:
    clone = tmp_path / "template"
    run("git", "clone", "--quiet", TEMPLATE, clone, cwd=tmp_path)
    run(
        *COPIER,
        *("copy", "--trust", "--defaults", "-d", "scope=backend", url, "billing"),
        cwd=tmp_path,
        env=environment(
            COPIER_CACHE_DIR=str(tmp_path / "cache"),
            GIT_CONFIG_COUNT="1",
            GIT_CONFIG_KEY_0=f"url.{clone}.insteadOf",
            GIT_CONFIG_VALUE_0=url.removeprefix("git+"),
        ),
    )

    assert answers(tmp_path / "billing")["_src_path"] == kept
    readme = (tmp_path / "billing" / "README.md").read_text()
    assert f"`uvx copier copy --trust {kept} app/<service>`" in readme
    for name in files(tmp_path / "billing"):
        assert "hunter2" not in (tmp_path / "billing" / name).read_text()


def test_secrets_can_come_from_a_function_of_the_team(bare_backend: Path) -> None:
    (bare_backend / "app" / "settings.py").write_text(
        "def read_secret(name: str) -> str:\n"
        "    return f'postgresql://{name.lower()}@127.0.0.1:1/theirs'\n"
    )
    copy(
        "app/billing",
        *(
            "-d",
            "get_secret_value=app.settings.read_secret",
            "-d",
            "database_secret=DB-URL",
        ),
        cwd=bare_backend,
    )

    result = run(
        *(sys.executable, "-m", "app.billing.workers", "status"),
        cwd=bare_backend,
        check=False,
    )

    assert "127.0.0.1:1/theirs" in result.stderr
    run(
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--no-cache",
        "--select=I",
        ".",
        cwd=bare_backend,
    )


def test_a_path_with_brackets_is_not_read_as_a_pattern(tmp_path: Path) -> None:
    root = tmp_path / "[backend]"
    (root / "app" / "billing").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    (root / "app" / "billing" / "main.py").touch()

    printed = copy("app/billing", "-T", cwd=root).stderr

    assert answers(root / "app" / "billing")["package"] == "app.billing"
    assert "main.py is unchanged, because tasks were skipped" in printed
