"""The public face of the library: its names, its version, and the error of an older version."""

import subprocess
import sys
import tomllib
from pathlib import Path

import chancy_runtime
import pytest
from chancy_runtime import cli, testing, web

ROOT = Path(__file__).parents[2]
# Chancy's own names, re-exported.
OF_CHANCY = {"Job", "Limit", "Queue", "QueuedJob", "Reference", "job", "__version__"}


def test_each_public_name_has_a_docstring() -> None:
    for module in (chancy_runtime, web, testing, cli):
        names = getattr(module, "__all__", ["main"])
        for name in names:
            value = getattr(module, name)
            if name not in OF_CHANCY:
                assert value.__doc__, f"{module.__name__}.{name}"


def test_nothing_else_is_public() -> None:
    """All names without an underscore, except submodules, are in __all__."""
    public = {name for name in vars(chancy_runtime) if not name.startswith("_")}
    submodules = {name for name in public if f"chancy_runtime.{name}" in sys.modules}

    extra = (
        public
        - submodules
        - {*("TYPE_CHECKING", "Any", "find_spec", "import_module", "missing_name")}
    )
    assert extra <= set(chancy_runtime.__all__)


def test_the_library_and_the_template_have_one_version() -> None:
    versions = {
        tomllib.loads((ROOT / path).read_text())["project"]["version"]
        for path in ("pyproject.toml", "runtime/pyproject.toml")
    }

    assert versions == {chancy_runtime.__version__}


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )


def test_an_older_library_says_so_in_one_line() -> None:
    result = in_a_process(
        "from chancy_runtime import require_version\nrequire_version('99.1')\n"
    )

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "need chancy-runtime 99.1 or later, and" in line
    assert "uv lock --upgrade-package chancy-runtime" in line


def test_a_library_that_is_new_enough_raises_nothing() -> None:
    chancy_runtime.require_version("0.5")
    chancy_runtime.require_version(chancy_runtime.__version__)


def test_under_pytest_an_older_library_is_a_failed_import() -> None:
    with pytest.raises(ImportError, match="99 or later"):
        chancy_runtime.require_version("99")


def test_the_error_for_a_name_of_a_later_version_names_the_upgrade() -> None:
    result = in_a_process("from chancy_runtime import Teleport\n")

    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: chancy-runtime ")
    assert "has no Teleport" in last and "uv lock --upgrade-package" in last


def test_without_sentry_only_its_plugin_is_missing(tmp_path: Path) -> None:
    (tmp_path / "sentry_sdk.py").write_text("raise ImportError('not installed')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from chancy_runtime import Chancy, Worker\n"
        "from chancy_runtime import SentryPlugin\n"
    )

    last = in_a_process(code).stderr.splitlines()[-1]

    assert "install chancy-runtime[sentry]" in last


def test_without_fastapi_the_rest_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "fastapi.py").write_text("raise ImportError('not installed')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import chancy_runtime, chancy_runtime.cli, chancy_runtime.testing\n"
    )

    assert in_a_process(code).returncode == 0


def test_the_server_and_the_watcher_of_run_are_not_imported_before_it_runs() -> None:
    code = (
        "import sys, chancy_runtime, chancy_runtime.cli\n"
        "print({'fastapi', 'uvicorn', 'watchfiles'} & set(sys.modules))\n"
    )

    assert in_a_process(code).stdout == "set()\n"
