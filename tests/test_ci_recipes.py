"""The commands of the two workflows in docs/updates.md do what the page says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .releases import INSTANCE, NEXT, WORKING_TREE, commit_all
from .support import GIT, TEMPLATE, commit, copy, environment, run

ANSWERS = ".copier-answers.yml"


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    return folder


def replace_first_line(path: Path, line: str) -> None:
    _, rest = path.read_text().split("\n", 1)
    path.write_text(f"{line}\n{rest}")


def add_service(origin: Path, name: str, template: Path, release: str) -> Path:
    copy(f"app/{name}", f"--vcs-ref={release}", cwd=origin, template=template)
    return origin / "app" / name


def printed() -> list[str]:
    """The YAML in the page's section about CI."""
    page = (TEMPLATE / "docs" / "updates.md").read_text()
    _, _, section = page.partition("\n## In CI\n")
    section = section.partition("\n## ")[0]
    return re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)


def steps_of(job: str) -> list[dict[str, Any]]:
    """The steps of the workflow with a job."""
    blocks = map(yaml.safe_load, printed())
    (found,) = [block["jobs"][job] for block in blocks if job in block.get("jobs", {})]
    steps: list[dict[str, Any]] = found["steps"]
    return steps


def run_job(
    job: str, origin: Path, checkout: Path, template: Path
) -> subprocess.CompletedProcess[str]:
    """Checks out like the job, and runs its commands like a runner."""
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is not installed: python3 -m pip install uv"
    checkout_step, *steps = steps_of(job)
    depth = checkout_step.get("with", {}).get("fetch-depth", 1)
    history = [f"--depth={depth}"] if depth else []
    run("git", "clone", "-q", *history, origin.as_uri(), checkout, cwd=origin)
    (command,) = [step["run"] for step in steps if "run" in step]
    return run(
        *("bash", "-e", "-c", command.replace("TEMPLATE", f"git+{template.as_uri()}")),
        cwd=checkout,
        env=environment(
            PATH=f"{Path(uv).parent}{os.pathsep}{os.environ['PATH']}",
            UV_PYTHON=sys.executable,
        ),
        check=False,
    )


def commit_as_create_pull_request(checkout: Path) -> None:
    """Runs the git commands with which that action commits a job's changes."""
    run("git", "checkout", "--progress", "-B", "scratch", "HEAD", "--", cwd=checkout)
    run("git", "add", "-A", cwd=checkout)
    run(*GIT, "commit", "-q", "-m", "update", cwd=checkout)


def errors_in(printed: str) -> list[str]:
    """The annotations that are errors."""
    return [line for line in printed.splitlines() if line.startswith("::error ")]


def test_the_check_passes_a_current_backend(
    origin: Path, next_release: Path, tmp_path: Path
) -> None:
    add_service(origin, "billing", next_release, NEXT)
    commit(origin)

    result = run_job("workers", origin, tmp_path / "checkout", next_release)

    assert (result.returncode, errors_in(result.stdout)) == (0, []), result.stderr


def test_the_check_fails_with_annotations_if_a_service_is_broken(
    origin: Path, next_release: Path, tmp_path: Path
) -> None:
    """A new release of the template alone does not make it fail."""
    billing = add_service(origin, "billing", next_release, WORKING_TREE)
    replace_first_line(billing / INSTANCE, '"""Ours."""')
    commit(origin)

    behind = run_job("workers", origin, tmp_path / "behind", next_release)
    (billing / INSTANCE).unlink()
    commit_all(origin)
    broken = run_job("workers", origin, tmp_path / "broken", next_release)

    assert (behind.returncode, errors_in(behind.stdout)) == (0, []), behind.stderr
    notice, *_ = behind.stdout.splitlines()
    assert notice.startswith(f"::notice file=app/billing/{ANSWERS},line=")
    assert f"{WORKING_TREE} is behind {NEXT}" in notice
    assert broken.returncode == 1, broken.stderr
    (missing,) = errors_in(broken.stdout)
    assert missing.startswith(f"::error file=app/billing/{INSTANCE},line=")


def test_the_check_reports_conflicts_in_the_pull_request_of_the_update(
    origin: Path, next_release: Path, tmp_path: Path
) -> None:
    billing = add_service(origin, "billing", next_release, WORKING_TREE)
    shipping = add_service(origin, "shipping", next_release, WORKING_TREE)
    replace_first_line(shipping / INSTANCE, '"""Ours."""')
    commit(origin)
    answers = billing / ANSWERS
    answers.write_text(answers.read_text().replace("sentry: true", "sentry: false"))
    commit_all(origin)
    checkout = tmp_path / "checkout"

    result = run_job("update", origin, checkout, next_release)
    assert result.returncode == 0, result.stderr
    assert "\n::warning::" in result.stdout
    commit_as_create_pull_request(checkout)

    changed = run("git", "diff", "--name-only", "HEAD^", cwd=checkout).stdout.split()
    assert {f"app/billing/{INSTANCE}", f"app/shipping/{INSTANCE}"} < set(changed)
    assert (
        "as the next release has"
        in (checkout / "app" / "billing" / INSTANCE).read_text()
    )
    assert "sentry: false" in (checkout / "app" / "billing" / ANSWERS).read_text()
    theirs = (checkout / "app" / "shipping" / INSTANCE).read_text()
    assert (
        "<<<<<<<" in theirs
        and "Ours." in theirs
        and "as the next release has" in theirs
    )

    again = run_job("workers", checkout, tmp_path / "again", next_release)
    assert again.returncode == 1
    assert f"file=app/shipping/{INSTANCE}" in again.stdout
    assert "has a conflict from an update" in again.stdout


def test_the_update_of_a_current_backend_leaves_nothing_for_a_pull_request(
    origin: Path, next_release: Path, tmp_path: Path
) -> None:
    add_service(origin, "billing", next_release, NEXT)
    commit(origin)
    checkout = tmp_path / "checkout"

    result = run_job("update", origin, checkout, next_release)

    assert result.returncode == 0, result.stderr
    assert "::warning::" not in result.stdout
    assert run("git", "status", "--porcelain", cwd=checkout).stdout == ""


def test_the_workflows_match_github_s_schema(tmp_path: Path) -> None:
    files = [*(TEMPLATE / ".github/workflows").iterdir()]
    for text in printed():
        if "jobs:" in text:
            files.append(tmp_path / f"{len(files)}.yml")
            files[-1].write_text(text)
    assert len(files) == 3
    program = Path(sys.executable).with_name("check-jsonschema")

    schema = "--builtin-schema=vendor.github-workflows"
    result = run(program, schema, *files, cwd=tmp_path, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
