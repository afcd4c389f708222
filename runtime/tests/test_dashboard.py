"""The dashboard is closed to outsiders, and to visitors beyond what their role may do."""

import asyncio
import json
import re
import time
from typing import Any

import dashboard_service
import httpx
import pytest
from chancy.plugins.workflow import Workflow, WorkflowPlugin
from chancy_runtime import WorkersError
from chancy_runtime.dashboard import Role, Visitor, dashboard_router, gate
from chancy_runtime.dashboard.visitors import is_visitor
from dashboard_service import (
    BILLING,
    MAIL,
    OPERATOR_PASSWORD,
    ROUTES,
    SECRET,
    Service,
    Site,
    greet,
    log_in,
    of_dashboard,
)
from fastapi import FastAPI
from fastapi.testclient import TestClient
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from harness.databases import query

pytestmark = pytest.mark.xdist_group("dashboard")

NOBODY = "00000000-0000-0000-0000-000000000000"


def answer(site: Site, user: str | None, method: str, path: str, id: str) -> int:
    """The status that a user gets at a route of Chancy."""
    path = path.format(id=id, name="kept", prefix="jobs")
    if method == "WEBSOCKET":
        try:
            with site.websocket(user):
                return 101
        except InvalidStatus as error:
            return error.response.status_code
    body = {"action": "retry", "ids": [id], "executor": "os.system"}
    return site(
        method, path, user, json=body if method in ("POST", "PATCH") else None
    ).status_code


@pytest.mark.parametrize(("number", "user"), [(0, None), (1, "vera"), (2, "ada")])
def test_each_route_is_closed_except_those_of_the_role(
    site: Site, number: int, user: str | None, app_log: pytest.LogCaptureFixture
) -> None:
    workflow = asyncio.run(new_workflow(site.billing))
    before = site.queue("kept")
    got = {}
    for method, path in ROUTES:
        id = workflow if "workflows" in path else site.job(state="failed")
        if path.endswith("cancel"):
            id = site.job(state="pending")
        got[method, path] = answer(site, user, method, path, id)
        if user != "ada" and "workflows" not in path:
            assert site.state(id) in ("failed", "pending")
    assert got == {route: statuses[number] for route, statuses in ROUTES.items()}
    assert site.queue("kept") == before
    changes = [line for line in of_dashboard(app_log) if "(" in line]
    refused = [line for line in changes if "refused" in line]
    if user is None:
        assert not changes
    else:
        all_changes = [
            route for route in ROUTES if route[0] not in ("GET", "WEBSOCKET")
        ]
        assert len(changes) == len(all_changes)
        assert all(f"dashboard: {user} " in line for line in changes)
        assert len(refused) == sum(
            ROUTES[route][number] != 200 for route in all_changes
        )


async def new_workflow(service: Service) -> str:
    """Pushes a workflow of one job."""
    async with service.create() as chancy:
        step = greet.job.with_kwargs(name=SECRET, times=3).with_queue("kept")
        workflow = Workflow("greetings").add("first", step)
        return str(await WorkflowPlugin.push(chancy, workflow))


def test_an_outsider_gets_no_file_and_no_page(site: Site) -> None:
    page = site("GET", "/", "vera")
    files = re.findall(r'(?:src|href)="\.(/[^"]+)"', page.text)
    assert len(files) == 4
    for path in ("", "/", "/jobs", f"/jobs/{NOBODY}", *files):
        assert site("GET", path, "vera").status_code == 200
        for name in (None, "mallory"):
            refused = site("GET", path, name)
            assert refused.status_code == 401
            assert "You are not logged in." in refused.text
            assert "script" not in refused.text


def test_an_answer_that_is_not_a_visitor_is_refused_and_logged_once(
    site: Site, app_log: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        site("GET", "/api/v1/jobs", "mallory", base=f"/behind{BILLING}")
    (line,) = of_dashboard(app_log)
    assert line.startswith(
        "ERROR dashboard: who returned a bool, which is not a Visitor"
    )


def test_the_page_loads_nothing_from_elsewhere_and_is_in_no_frame(site: Site) -> None:
    for base in (BILLING, f"/behind{BILLING}"):
        page = site("GET", "/jobs", "vera", base=base)
        assert f'<base href="{base}/">' in page.text
        assert "//" not in page.text.replace("<!doctype", "")
        module, script = re.findall("<script[^>]*>", page.text)
        # The page's module runs when the page is parsed, after the gate's script.
        assert ("module" in module, script) == (True, '<script src="./gate.js">')
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    for path in ("", "/nothing", "/gate.js", "/api/v1/jobs", "/api/v1/nothing"):
        headers = site("GET", path, "vera").headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize(
    "path",
    [
        *("/assets/../index.html", "/assets/..%2f..%2fauth.py", "/assets/%2e%2e/x.js"),
        *("/assets/", "/index.html", "/api/v1/jobs/1", "/api/v1/jobs/", "/api/v2/jobs"),
        *("/api/v1/queues/kept", "//api/v1/jobs", "/api/v1/jobs%00", "/login"),
    ],
)
def test_a_path_that_is_not_listed_is_closed(site: Site, path: str) -> None:
    assert site("GET", path, "ada").status_code == 404


def test_a_token_from_a_browser_opens_nothing(site: Site) -> None:
    token = {"authorization": "Bearer x"}
    assert site("GET", "/api/v1/jobs", headers=token).status_code == 401
    assert site("GET", "/api/v1/jobs?token=x", "vera", headers=token).status_code == 200


FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://["},
    {"origin": None},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"content-type": "text/plain"},
    {"content-type": "application/x-www-form-urlencoded"},
    {"content-type": None},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_foreign_page_changes_nothing(
    site: Site, headers: dict[str, str | None], app_log: pytest.LogCaptureFixture
) -> None:
    answer = site("POST", "/api/v1/queues/kept/pause", "ada", headers=headers)

    assert answer.status_code == 403
    assert site.queue("kept")["state"] == "active"
    assert of_dashboard(app_log) == [
        "WARNING dashboard: ada (operator): POST api/v1/queues/kept/pause: "
        "refused: The request came from another site, so it was refused."
    ]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/v1/jobs", {"origin": "https://evil.example"}),
        ("/api/v1/jobs", {"sec-fetch-site": "same-site"}),
        ("/gate.js", {"sec-fetch-site": "cross-site"}),
        ("/jobs", {"origin": "https://evil.example"}),
        ("/jobs", {"origin": "http://["}),
    ],
)
def test_a_foreign_page_reads_nothing(
    site: Site, path: str, headers: dict[str, str]
) -> None:
    assert site("GET", path, "ada", headers=headers).status_code == 403


def test_links_and_proxies_work(site: Site) -> None:
    link = {"sec-fetch-site": "cross-site"}
    assert site("GET", "/jobs", "ada", headers=link).status_code == 200
    proxied = {
        "host": "inner:80",
        "x-forwarded-host": site.address.removeprefix("http://"),
    }
    path = "/api/v1/queues/kept/resume"
    assert site("POST", path, "ada", headers=proxied).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "title"),
    [
        ("PATCH", "queues/kept", {"executor": "os.system"}, "Queues are declared in"),
        (
            "PATCH",
            "queues/kept",
            {"executor_options": {"a": 1}},
            "Queues are declared in",
        ),
        ("PATCH", "queues/kept", {"concurrency": 1}, "Queues are declared in"),
        (
            "PUT",
            "queues/kept",
            {"state": "paused"},
            "The dashboard does not allow this.",
        ),
        ("POST", "queues", {"name": "new", "executor": "os.system"}, "Queues are decl"),
        ("DELETE", "queues/kept", None, "Queues are not deleted here"),
        ("DELETE", "queues/kept?purge_jobs=false", None, "Queues are not deleted here"),
        ("DELETE", "jobs/{id}", None, "Jobs are not deleted here"),
        ("POST", "jobs", {"action": "purge", "ids": ["{id}"]}, "Jobs are not deleted"),
        ("POST", "jobs", {"action": "PURGE", "ids": ["{id}"]}, "The action is neither"),
        ("POST", "jobs", {"action": ["retry"], "ids": ["{id}"]}, "The action is nei"),
        ("POST", "jobs", {"action": "retry", "ids": []}, "ids is not a list"),
        ("POST", "jobs", {"action": "retry", "ids": ["x"]}, "One of the ids"),
        ("POST", "jobs", ["retry"], "The body is not a JSON object"),
        ("POST", "queues/kept/pause", {"resume_at": "soon"}, "resume_at is not a time"),
        (
            "POST",
            "queues/kept/pause",
            {"resume_at": "9999-12-31T23:59:59-14:00"},
            "resume_at is not a time",
        ),
        ("POST", "queues/nothing/pause", {}, "there is no such queue"),
        ("POST", f"jobs/{NOBODY}/retry", None, "there is no such job"),
        ("POST", "jobs/1/retry", None, "The dashboard does not allow this."),
        ("POST", "jobs", {"ids": ["x" * 70_000]}, "The body has more than"),
    ],
)
def test_an_operator_changes_nothing_else(
    site: Site,
    method: str,
    path: str,
    body: object,
    title: str,
    app_log: pytest.LogCaptureFixture,
) -> None:
    id = site.job(state="failed")
    queues = query(site.url, "SELECT * FROM billing_queues ORDER BY name")
    content = json.dumps(body).replace("{id}", id) if body is not None else None

    path = f"/api/v1/{path.format(id=id)}"
    answer = site(method, path, "ada", content=content)

    assert answer.json()["title"].startswith(title)
    assert answer.status_code in (403, 404, 409, 413, 422)
    assert query(site.url, "SELECT * FROM billing_queues ORDER BY name") == queues
    assert site.state(id) == "failed"
    (line,) = of_dashboard(app_log)
    assert line.startswith("WARNING dashboard: ada (operator): ")
    assert title in line


def test_an_operator_pauses_and_resumes_a_queue(
    site: Site, app_log: pytest.LogCaptureFixture
) -> None:
    path = "/api/v1/queues/kept"
    until = {"resume_at": "2999-01-01T00:00:00Z"}
    assert site("POST", f"{path}/pause", "ada", json=until).json() == {"ok": True}
    row = site.queue("kept")
    assert (row["state"], row["resume_at"][:10]) == ("paused", "2999-01-01")
    assert site("POST", f"{path}/resume", "ada").json() == {"ok": True}
    assert site.queue("kept")["state"] == "active"
    assert of_dashboard(app_log) == [
        "INFO dashboard: ada (operator): paused until 2999-01-01 00:00:00+00:00 kept: done",
        "INFO dashboard: ada (operator): resumed kept: done",
    ]


def test_an_operator_retries_and_cancels_jobs_that_are_in_a_state_for_it(
    site: Site, app_log: pytest.LogCaptureFixture
) -> None:
    failed, done = site.job(state="failed"), site.job(state="succeeded")
    taken = site.job(state="failed", unique_key=SECRET)
    site.job(state="pending", unique_key=SECRET)

    assert site("POST", f"/api/v1/jobs/{done}/cancel", "ada").json() == {
        "title": "its state is succeeded"
    }
    retry = {"action": "retry", "ids": [failed, done, taken, failed]}
    retried = site("POST", "/api/v1/jobs", "ada", json=retry).json()
    assert site("POST", f"/api/v1/jobs/{failed}/cancel", "ada").json() == {"ok": True}

    assert retried["ok"] is False
    assert [each["status"] for each in retried["results"]] == [
        *("completed", "skipped", "skipped"),
    ]
    assert site.state(done) == "succeeded"
    ((state, error),) = query(
        site.url,
        "SELECT state, errors -> -1 ->> 'traceback' FROM billing_jobs WHERE id = %s::uuid",
        failed,
    )
    assert (state, error) == ("failed", "cancelled by ada on the dashboard")
    lines = of_dashboard(app_log)
    assert [
        line.partition(" (operator): ")[2].partition(": ")[0] for line in lines
    ] == [
        *(f"cancelled {done}", f"retried {failed}", f"retried {done}"),
        *(f"retried {taken}", f"cancelled {failed}"),
    ]
    assert SECRET not in json.dumps(retried) + "".join(lines)


def test_a_line_of_the_log_is_one_line(
    site: Site, app_log: pytest.LogCaptureFixture
) -> None:
    site("POST", "/api/v1/queues/a%1bINFO%20%E2%80%AEb/pause", "ada")
    (line,) = of_dashboard(app_log)
    assert "paused a?INFO ?b: there is no such queue" in line


def test_each_service_has_its_own_functions(site: Site) -> None:
    site.job(func="app.billing.of_billing")
    site.job("mail_", func="app.mail.of_mail")
    functions = site("GET", "/api/v1/jobs/functions", "vera", base=f"/behind{BILLING}")
    assert "app.billing.of_billing" in functions.json()
    assert "app.mail.of_mail" not in functions.json()
    with httpx.Client(base_url=site.address) as browser:
        log_in(browser, OPERATOR_PASSWORD)
        functions = browser.get(f"{MAIL}/api/v1/jobs/functions")
    assert functions.json() == ["app.mail.of_mail"]


# --- live events ---------------------------------------------------------------------


def hear(events: ClientConnection, name: str) -> dict[str, Any]:
    """Waits for an event with this name; returns its parts."""
    while (heard := json.loads(events.recv(30)))["event"] != name:
        pass
    return dict(heard["data"])


def notify(site: Site, event: str, **parts: object) -> None:
    payload = json.dumps({"t": event, **parts})
    query(site.url, "SELECT pg_notify('billing_events', %s)", payload)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", None, "http://127.0.0.1.evil.example"]
)
def test_a_foreign_page_hears_nothing(site: Site, origin: str | None) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        site.websocket("ada", origin=origin)
    assert refusal.value.response.status_code == 403


def test_a_viewer_gets_events_without_parts_that_may_repeat_an_argument(
    site: Site,
) -> None:
    with site.websocket("vera") as events:
        notify(site, "billing.greeted", name=SECRET)
        notify(site, "queue.pushed", q="kept", name=SECRET, more={"q": SECRET})
        assert hear(events, "queue.pushed") == {"q": "kept"}
        site("POST", "/api/v1/queues/kept/resume", "ada")
        assert hear(events, "queue.resumed") == {"q": "kept"}


def test_events_end_with_the_visit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_ASK_AGAIN", 0.05)
    monkeypatch.setitem(dashboard_service.USERS, "guest", Role.VIEWER)
    with site.websocket("guest") as events:
        notify(site, "queue.pushed", q="first")
        assert hear(events, "queue.pushed") == {"q": "first"}
        monkeypatch.delitem(dashboard_service.USERS, "guest")
        deadline = time.monotonic() + 30
        with pytest.raises(ConnectionClosed) as end:
            while True:
                events.recv(deadline - time.monotonic())
    assert end.value.rcvd is not None
    assert end.value.rcvd.code == 1008


@pytest.mark.parametrize("has_started", [True, False])
def test_without_a_worker_in_the_process_it_shows_one_sentence(
    site: Site, has_started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKERS_MODE", "push")
    service = Service(site.url, "billing_")
    app = FastAPI()
    if has_started:
        app = FastAPI(lifespan=lambda _app: service.running())
    app.include_router(dashboard_router(service.get_chancy, who=dashboard_service.who))
    with TestClient(app) as browser:
        for user in ({}, {"x-user": "ada"}):
            for path in ("", "/jobs", "/api/v1/jobs", "/login"):
                answer = browser.get(f"/dashboard{path}", headers=user)
                assert answer.status_code == 503
                assert "No worker of the service runs in this process" in answer.text


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Visitor("ada", Role.VIEWER), True),
        (Visitor("ada", "operator"), True),  # type: ignore[arg-type]
        (Visitor("ada", "admin"), False),  # type: ignore[arg-type]
        (Visitor("ada", None), False),  # type: ignore[arg-type]
        (Visitor("", Role.VIEWER), False),
        (Visitor(7, Role.VIEWER), False),  # type: ignore[arg-type]
        *(
            (each, False)
            for each in (None, True, "ada", {"name": "ada"}, Role.OPERATOR)
        ),
    ],
)
def test_nobody_is_a_visitor_without_a_name_and_a_role(
    answer: object, expected: bool
) -> None:
    assert is_visitor(answer) is expected


def test_a_database_error_is_shown_without_its_message(
    site: Site, app_log: pytest.LogCaptureFixture
) -> None:
    query(site.url, "ALTER TABLE billing_workflows RENAME TO billing_other")
    try:
        answer = site("GET", "/api/v1/workflows", "vera")
    finally:
        query(site.url, "ALTER TABLE billing_other RENAME TO billing_workflows")
    assert answer.status_code == 503
    assert answer.json()["title"].startswith("The database did not answer, or refused")
    assert 'relation "billing_workflows" does not exist' in app_log.text


@pytest.mark.parametrize("path", ["", "/", "dashboard", "/dashboard/", "/{service}"])
def test_a_path_that_a_dashboard_cannot_have_is_refused(path: str) -> None:
    with pytest.raises(WorkersError, match="write it like /dashboard/billing"):
        dashboard_router(
            Service("", "x_").get_chancy, who=dashboard_service.who, path=path
        )


@pytest.mark.parametrize(
    "parameters",
    [
        *({"filters": text} for text in ("{", "7", "[7]", '[["state", "=", {}]]')),
        *({"filters": f'[["{key}", "=", [7]]]'} for key in ("priority", "func")),
        *({"filters": text} for text in ('[[[], "=", 7]]', '[["state", {}, 7]]')),
        *({"filters": f'[["created_at", ">", {a}]]'} for a in ('"odd"', "7", "null")),
        {"filters": '[["func", "~", "\\u0000"]]'},
        *({"limit": text} for text in ("many", "-1", "9" * 30, "1" * 5000)),
        *({"before": text, "pagination": "true"} for text in ("odd", "\0", "[]")),
        *({name: "\0"} for name in ("state", "queue", "func")),
    ],
    ids=str,
)
def test_invalid_parameters_are_named(
    site: Site, parameters: dict[str, str], app_log: pytest.LogCaptureFixture
) -> None:
    answer = site("GET", "/api/v1/jobs", "vera", params=parameters)
    assert answer.status_code in (200, 422)
    assert of_dashboard(app_log) == []
