"""An update keeps an answer and a file that a release renames, shown with a made-up release.

No real release needed a migration yet. CONTRIBUTING.md explains how to write one; this is an
example.
"""

from pathlib import Path

import pytest
import yaml

from .releases import WORKING_TREE, commit_all, list_files, make_template, update
from .shared import Shared
from .support import PROGRAM, commit, copy, run

NEXT = "v99.1.0"
OLD, NEW = "start_without_database", "http_first"
MIGRATION = f'''\
import sys
from pathlib import Path

import yaml


def rename_{OLD}(answers):
    answers["{NEW}"] = answers.pop("{OLD}")


path = Path(sys.argv[1])
answers = yaml.safe_load(path.read_text())
rename_{OLD}(answers)
del answers["_fingerprint"]
path.write_text(yaml.safe_dump(answers))
'''
ENTRY = f"""\
_migrations:
  - version: {NEXT}
    command:
      - "{{{{ _copier_python }}}}"
      - "{{{{ pathjoin(_copier_conf.src_path, 'tasks', 'rename.py') }}}}"
      - "{{{{ _copier_conf.answers_file }}}}"
    when: "{{{{ _stage == 'before' }}}}"
"""


@pytest.fixture(scope="session")
def template(shared: Shared) -> Path:
    """The working tree, and a later release that renames an answer and a module."""
    return shared.folder("renamed/template", make_renamed)


def make_renamed(folder: Path) -> None:
    make_template(folder)
    for name in list_files(folder):
        path = folder / name
        if name.startswith(("copier.yml", "questions/", "template/")):
            text = path.read_text()
            path.write_text(
                text.replace(OLD, NEW).replace("chancy_instance", "chancy_holder")
            )
            path.rename(
                path.with_name(path.name.replace("chancy_instance", "chancy_holder"))
            )
    settings = folder / "copier.yml"
    settings.write_text(settings.read_text().replace("_migrations:\n", ENTRY, 1))
    (folder / "tasks" / "rename.py").write_text(MIGRATION)
    commit_all(folder)
    run("git", "tag", NEXT, cwd=folder)


@pytest.mark.parametrize("program", ["copier", "chancy-workers"])
def test_an_update_keeps_a_renamed_answer_and_a_renamed_module(
    program: str, template: Path, tmp_path: Path
) -> None:
    root = tmp_path / "backend"
    given = ("--data=scope=backend", f"--data={OLD}=true", f"--vcs-ref={WORKING_TREE}")
    copy(root, *given, cwd=tmp_path, template=template)
    commit(root)

    if program == "copier":
        update(root)
    else:
        run(PROGRAM, "update", cwd=root)

    answers = yaml.safe_load((root / ".copier-answers.yml").read_text())
    assert answers[NEW] is True
    assert OLD not in answers
    workers = root / "app" / "billing" / "workers"
    text = (workers / "chancy_initialization.py").read_text()
    assert "@join_when_database_is_there" in text
    assert (workers / "chancy_holder.py").is_file()
    assert not (workers / "chancy_instance.py").exists()
    commit_all(root)
    printed = run(PROGRAM, "check", cwd=root).stdout
    assert printed.endswith("1 service is whole\n")
