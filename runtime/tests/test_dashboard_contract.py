"""The parts of Chancy's dashboard that the gate uses; a test fails by name if one moves."""

import re
import subprocess
import sys
from importlib.metadata import requires
from importlib.resources import files
from typing import Any

import pytest
from chancy_runtime.dashboard import reading
from chancy_runtime.dashboard.changing import CHANGES, CLOSED
from chancy_runtime.dashboard.events import _PARTS
from dashboard_service import ROUTES, Service, routes_of_chancy

from harness.contract import found, uses
from harness.recorder import plain_chancy

API = "chancy.plugins.api"
PAGE = files(API) / "dist"
# Chancy's routes that the page requests and the gate answers itself.
OWN = [("POST", "/api/v1/logout"), ("WEBSOCKET", "/api/v1/ws")]


def test_each_route_of_chancy_is_listed() -> None:
    service = Service("postgresql://127.0.0.1/nothing", "billing_")
    assert routes_of_chancy(service) == ROUTES.keys()


def test_each_route_that_the_gate_knows_is_one_of_chancy() -> None:
    known = {("GET", each.path) for each in reading.READS}
    known |= {("GET", reading.FUNCTIONS), *((one.method, one.path) for one in CHANGES)}
    known |= {(method, path) for method, path, _ in CLOSED}
    examples = {
        (method, re.sub(r"{\w+}", "00000000-0000-0000-0000-000000000000", path)[1:])
        for method, path in ROUTES
    }
    for method, path in known:
        assert any(
            method == other and re.fullmatch(path, example)
            for other, example in examples
        ), f"chancy has no {method} {path}"
    assert ROUTES.keys() >= {*OWN}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (f"{API}:Api.build_starlette_app", ["api_plugin", "TokenAuthBackend"]),
        (f"{API}:Api.__init__", ["secret_key", "token_urlsafe"]),
        (f"{API}.auth:TokenAuthBackend.__init__", ["serializer", "chancy.api.token"]),
        (f"{API}.auth:TokenAuthBackend.authenticate", ["bearer ", "u", "max_age"]),
    ],
)
def test_tokens_are_checked_as_the_gate_makes_them(path: str, names: list[str]) -> None:
    assert {*names} <= uses(path)


def test_the_token_of_the_gate_is_one_of_chancy() -> None:
    from chancy_runtime.compat import dashboard_token

    backend = found(f"{API}.auth:TokenAuthBackend")("key")
    assert backend.serializer.loads(dashboard_token("key"), max_age=60)["u"]


def test_the_functions_of_all_services_are_still_in_one_list() -> None:
    assert "_functions_cache" in uses(f"{API}.core:CoreApiPlugin.jobs_functions")


def text_of_the_page() -> str:
    (script,) = (
        each for each in (PAGE / "assets").iterdir() if each.name.endswith(".js")
    )
    return script.read_text(encoding="utf-8")


def test_each_page_is_listed_and_each_file_can_be_read() -> None:
    pages = re.findall(
        r"path:[`\"]/([\w/:]*)[`\"],(?:element|loader)", text_of_the_page()
    )
    assert len(pages) > 10
    for page in pages:
        assert reading.PAGES.fullmatch(re.sub(r":\w+", "x", page)), page
    names = [f"assets/{each.name}" for each in (PAGE / "assets").iterdir()]
    for name in [*names, "logo_small.png"]:
        assert reading.FILES.fullmatch(name), name


def test_the_page_has_the_parts_that_the_gate_changes() -> None:
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert page.count('<base href="/">') == page.count("  </head>") == 1
    assert "//" not in reading._ELSEWHERE.sub("", page)


def test_the_page_sends_changes_in_the_form_that_the_gate_accepts() -> None:
    text = text_of_the_page()
    assert re.search(r'"Content-Type":\s*[`"]application/json[`"]', text)
    assert re.search(r"/api/v1/logout[`\"],\s*\{method:\s*[`\"]POST[`\"]", text)


def test_each_event_that_is_shown_is_one_of_chancy() -> None:
    used: set[str] = set()
    for path in (
        *("chancy.worker:Worker.start", "chancy.worker:Worker._maintain_queues"),
        *("chancy.worker:Worker._maintain_queue", "chancy.worker:Worker._stop"),
        *("chancy.worker:Worker.announce_worker", "chancy.app:Chancy.declare"),
        *("chancy.app:Chancy.push_many_ex", "chancy.app:Chancy.pause_queue"),
        *("chancy.app:Chancy.resume_queue", "chancy.app:Chancy.cancel_job"),
        *("chancy.plugins.pruner:Pruner.run", "chancy.plugins.recovery:Recovery.run"),
        "chancy.plugins.recovery:Recovery.recover",
        "chancy.plugins.leadership:Leadership.run",
        "chancy.plugins.workflow:WorkflowPlugin.on_jobs_updated_in_transaction",
    ):
        used |= uses(path)
    # Chancy builds these names from two parts.
    assert _PARTS.keys() - used == {"workflow.created", "workflow.updated"}


def test_the_extra_brings_what_chancy_needs_for_its_dashboard() -> None:
    wanted = {
        re.split(r"[^\w-]", each)[0]
        for each in requires("chancy") or []
        if re.search(r"extra == .web", each)
    }
    # Starlette comes with FastAPI.
    assert wanted == {"itsdangerous", "starlette", "uvicorn"}
    brought = [each for each in requires("chancy-runtime") or [] if "dashboard" in each]
    for name in ("itsdangerous", "uvicorn", "fastapi"):
        assert any(each.startswith(name) for each in brought), name


def test_an_unused_dashboard_is_not_imported_and_a_missing_package_is_named() -> None:
    code = (
        "import sys, chancy_runtime.web\n"
        "assert not {'itsdangerous', 'chancy.plugins.api'} & "
        "sys.modules.keys()\n"
        "sys.modules['itsdangerous'] = None\n"
        "import chancy_runtime.dashboard"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: chancy_runtime.dashboard needs itsdangerous: install "
        "chancy-runtime[dashboard], or remove the dashboard"
    )


def test_the_table_of_sessions_is_one_of_the_plugin() -> None:
    from chancy_runtime import DashboardSessions

    plugin: Any = DashboardSessions()
    migrator = plugin.migrator(plain_chancy("postgresql://127.0.0.1/nothing"))
    assert plugin.get_tables() == ["dashboard_sessions"]
    assert len(migrator.discover_all_migrations()) == 1
