"""The example service of the library's tests equals a rendered service."""

from pathlib import Path

from harness.recorder import EXAMPLE

from .support import copy

# Its body is written for the tests.
JOB = Path("app/billing/workers/record/worker.py")


def files_below(folder: Path) -> dict[Path, str]:
    return {
        path.relative_to(folder): path.read_text()
        for path in folder.rglob("*.py")
        if "tests" not in path.parts[len(folder.parts) :]
    }


def test_the_example_equals_a_render_of_the_template(tmp_path: Path) -> None:
    copy("backend", "-d", "scope=backend", "-d", "jobs=[record]", cwd=tmp_path)
    rendered, example = files_below(tmp_path / "backend"), files_below(EXAMPLE)

    for job in (rendered, example):
        assert '\n@job(queue="default")\nasync def record(' in job.pop(JOB)
    assert example == rendered, f"render it again, and copy app/ to {EXAMPLE}"
