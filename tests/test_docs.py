"""The pages' links work, and their statements match the code."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import chancy_runtime
import pytest
import yaml
from chancy_runtime import Settings, dashboard, settings, web

from .support import TEMPLATE, copy

PAGES = sorted(
    [
        *TEMPLATE.glob("*.md"),
        *TEMPLATE.glob("docs/**/*.md"),
        TEMPLATE / "runtime" / "README.md",
        *TEMPLATE.glob("template/*README.md*.jinja"),
    ]
)
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
INSTALL = re.compile(
    r"(?:uv add|(?:uv )?pip install|poetry add)[^`\n]*chancy[-_]runtime.*"
)
# The source of an installed package, in a direct reference or an option.
SOURCE = re.compile(r" @ (git\+|\./|file:)|--index|--source")


def ids(path: Path) -> str:
    return path.relative_to(TEMPLATE).as_posix()


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings on GitHub."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in LINK.findall(without_code(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (
            anchor and anchor not in anchors(target.read_text())
        ):
            broken.append(link)
    return broken


def bare_installs(text: str) -> list[str]:
    return [line for line in INSTALL.findall(text) if not SOURCE.search(line)]


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    text = (TEMPLATE / page).read_text()
    section = f"\n{text}".partition(f"\n{heading}\n")[2]
    table = re.search(r"^\|.*\n\| ---.*\n((?:\|.*\n)+)", section, re.MULTILINE)
    assert table, f"{page} has no table below {heading}"
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in table[1].splitlines()
    ]


def test_the_readme_is_short() -> None:
    assert len((TEMPLATE / "README.md").read_text().splitlines()) < 200


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_each_link_leads_to_an_existing_file_and_heading(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `heading`\n\n[a](#one-heading) [b](#two) [c](gone.md)\n")

    assert broken_links(page) == ["#two", "gone.md"]


def test_each_page_is_linked_from_the_readme() -> None:
    readme = (TEMPLATE / "README.md").read_text()

    assert set(map(ids, TEMPLATE.glob("docs/*.md"))) <= set(LINK.findall(readme))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_no_page_installs_the_library_by_its_name_alone(page: Path) -> None:
    """The name is not registered on the public index, so anybody could register it."""
    assert bare_installs(page.read_text()) == []


@pytest.mark.parametrize(
    "command",
    [
        "uv add chancy-runtime",
        'pip install "chancy-runtime[fastapi]>=0.5"',
        "python -m pip install --upgrade chancy_runtime",
    ],
)
def test_an_install_by_the_name_alone_is_found(command: str) -> None:
    assert bare_installs(f"Run `{command}` now.")


def test_each_page_or_section_that_code_names_exists() -> None:
    readme = anchors((TEMPLATE / "README.md").read_text())
    folders = ("tools", "tasks", "questions", "runtime/src")
    files = [path for folder in folders for path in (TEMPLATE / folder).rglob("*.*")]
    texts = [TEMPLATE / "copier.yml", *PAGES, *files]
    for path in texts:
        if path.suffix not in (".py", ".jinja", ".yml", ".md"):
            continue
        text = path.read_text()
        for name in re.findall(r"\bdocs/[\w.-]+\.(?:md|svg)", text):
            assert (TEMPLATE / name).is_file(), f"{ids(path)}: {name}"
        # Long texts in Python are split into several strings.
        text = (
            re.sub(r"""["']\n\s*f?["']""", "", text) if path.suffix == ".py" else text
        )
        for heading in re.findall(r'README(?:\.md)?,\s*["“]([^"”]+)["”]', text):
            assert "-".join(heading.lower().split()) in readme, (
                f"{ids(path)}: {heading}"
            )


def test_the_readme_shows_the_rendered_files(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    copy("app/billing", cwd=tmp_path)
    service = tmp_path / "app" / "billing"
    readme = (TEMPLATE / "README.md").read_text()

    (listing,) = re.findall(r"```python\n(DATABASE_SECRET.*?)```", readme, re.DOTALL)
    rendered = (service / "workers" / "chancy_initialization.py").read_text()
    assert rendered.endswith(listing)

    tree = readme.partition("```\napp/billing/\n")[2].partition("```")[0]
    shown = {line.split()[0].rstrip("/") for line in tree.splitlines()}
    there = {path.name for path in service.iterdir()}
    there |= {path.name for path in (service / "workers").iterdir()}
    assert {name.partition("/")[0] for name in shown} == there - {"__pycache__"}


def test_each_question_has_a_row_in_the_page() -> None:
    questions = yaml.safe_load((TEMPLATE / "copier.yml").read_text())
    asked = {
        name
        for name, question in questions.items()
        if not name.startswith("_") and question.get("when") is not False
    }
    cells = [row[0] for row in rows("docs/questions.md", "# Questions")]

    assert asked == set(re.findall(r"`(\w+)`", " ".join(cells)))


def test_the_page_has_each_setting_s_default_and_range() -> None:
    documented = {}
    for names, defaults, ranges, _ in rows("docs/settings.md", "# Settings"):
        values = (defaults.split(", "), ranges.split(", "))
        for name, default, span in zip(names.split(", "), *values, strict=False):
            low, high = (int(end.replace(",", "")) for end in span.split(" to "))
            value = int(default.removesuffix(" s"))
            documented[name.strip("`")] = value, (low, high)

    assert documented.pop("CHANCY_MIN_POOL_SIZE") == (5, (1, 1000))
    assert documented == {
        field.name: (field.default, settings._RANGES[field.name])
        for field in fields(Settings)
        if field.name in settings._RANGES
    }


def test_the_names_that_moved_are_in_the_library() -> None:
    page = "docs/migrating-to-0.5.md"
    for old, new in rows(page, "## Imports in your own files"):
        if old.startswith("`from"):
            ((name, _),) = re.findall(r"import (\w+)` and `(\w+)", old)
            assert hasattr(web, name)
            parameter = next(iter(inspect.signature(getattr(web, name)).parameters))
            assert f"`{name}({parameter})`" in new
        else:
            for name in re.findall(r"`(\w+)`", old.partition(":")[2]):
                assert hasattr(chancy_runtime, name), old


def test_the_tests_that_the_promises_name_exist() -> None:
    for _, files in rows("CONTRIBUTING.md", "## One promise, one test"):
        for name in re.findall(r"`([^`]+)`", files):
            assert (TEMPLATE / name).is_file(), name


def test_the_library_s_page_lists_its_public_names() -> None:
    listed = dict(rows("runtime/README.md", "## Public names"))

    for module in (chancy_runtime, dashboard, web):
        names = set(re.findall(r"`(\w+)`", listed[f"`{module.__name__}`"]))
        assert names == set(module.__all__) - {"__version__"}
