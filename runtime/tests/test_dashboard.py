"""The dashboard is closed to outsiders, and to visitors beyond what their role may do."""

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from chancy.plugins.api import Api, SimpleAuthBackend
from chancy.plugins.workflow import Workflow, WorkflowPlugin
from chancy_runtime import migrate
from dashboard_service import Secrets, Service, app_of, greet, served
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from harness.databases import database, query

BILLING = "/dashboard/billing"
SECRET = "hunter2@example.com"
NOBODY = "00000000-0000-0000-0000-000000000000"
# By method and path of Chancy's: what an outsider, a viewer and an operator get.
CLOSED_READ = (401, 404, 404)
READ = (401, 200, 200)
CLOSED = (401, 403, 403)
CHANGE = (401, 403, 200)
ROUTES = {
    ("GET", "/health"): CLOSED_READ,
    ("GET", "/api/v1/configuration"): READ,
    ("WEBSOCKET", "/api/v1/ws"): (403, 101, 101),
    ("POST", "/api/v1/login"): CLOSED,
    ("POST", "/api/v1/logout"): CLOSED,
    ("GET", "/api/v1/queues"): READ,
    ("POST", "/api/v1/queues"): CLOSED,
    ("GET", "/api/v1/workers"): READ,
    ("GET", "/api/v1/jobs"): READ,
    ("POST", "/api/v1/jobs"): CHANGE,
    ("GET", "/api/v1/jobs/functions"): READ,
    ("GET", "/api/v1/jobs/{id}"): READ,
    ("DELETE", "/api/v1/jobs/{id}"): CLOSED,
    ("POST", "/api/v1/jobs/{id}/retry"): CHANGE,
    ("POST", "/api/v1/jobs/{id}/cancel"): CHANGE,
    ("PATCH", "/api/v1/queues/{name}"): CLOSED,
    ("DELETE", "/api/v1/queues/{name}"): CLOSED,
    ("POST", "/api/v1/queues/{name}/pause"): CHANGE,
    ("POST", "/api/v1/queues/{name}/resume"): CHANGE,
    ("GET", "/api/v1/system"): READ,
    ("GET", "/api/v1/plugins"): READ,
    ("GET", "/api/v1/crons"): READ,
    ("GET", "/api/v1/workflows"): READ,
    ("GET", "/api/v1/workflows/{id}"): READ,
    ("GET", "/api/v1/metrics"): READ,
    ("GET", "/api/v1/metrics/{prefix}"): READ,
}


class Site:
    """The two services under uvicorn, and what is in their database."""

    def __init__(self, url: str, address: str) -> None:
        self.url = url
        self.address = address
        self.billing = Service(url, "billing_")
        self.mail = Service(url, "mail_")
        self.secrets = Secrets()

    def __call__(
        self,
        method: str,
        path: str,
        user: str | None = None,
        *,
        base: str = BILLING,
        **options: Any,
    ) -> httpx.Response:
        """Sends a request as the page of the dashboard would send it."""
        headers = {"content-type": "application/json"}
        if method != "GET":
            headers["origin"] = self.address
        if user:
            headers["x-user"] = user
        headers |= options.pop("headers", {})
        dropped = [name for name, value in headers.items() if value is None]
        for name in dropped:
            del headers[name]
        url = f"{self.address}{base}{path}"
        return httpx.request(method, url, headers=headers, timeout=30, **options)

    def websocket(self, user: str | None, **options: Any) -> ClientConnection:
        """Opens the WebSocket of live events."""
        headers = {"x-user": user} if user else {}
        return connect(
            f"{self.address.replace('http', 'ws')}{BILLING}/api/v1/ws",
            additional_headers=headers,
            **{"origin": self.address, **options},
        )

    def job(self, prefix: str = "billing_", **columns: Any) -> str:
        """Adds a job to the queue from which nobody takes; returns its id."""
        values = {
            "queue": "kept",
            "func": greet.job.func,
            "kwargs": json.dumps({"name": SECRET, "times": 3}),
            "meta": json.dumps({"trace": SECRET}),
            **columns,
        }
        names, places = ", ".join(values), ", ".join(["%s"] * len(values))
        ((id,),) = query(
            self.url,
            f"INSERT INTO {prefix}jobs (id, {names}) "
            f"VALUES (gen_random_uuid(), {places}) RETURNING id::text",
            *values.values(),
        )
        return str(id)

    def state(self, id: str) -> str:
        ((state,),) = query(
            self.url, "SELECT state FROM billing_jobs WHERE id = %s::uuid", id
        )
        return str(state)

    def queue(self, name: str) -> dict[str, Any]:
        rows = query(
            self.url,
            "SELECT row_to_json(q) FROM billing_queues q WHERE name = %s",
            name,
        )
        return dict(rows[0][0]) if rows else {}


@pytest.fixture(scope="module")
def site(server_url: str) -> Iterator[Site]:
    with database(server_url) as url:
        site = Site(url, "")
        for each in (site.billing, site.mail):
            asyncio.run(migrate(each.create()))
        with served(lambda: app_of(site.billing, site.mail, site.secrets)) as address:
            site.address = address
            yield site


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="app")
    return caplog


def of_dashboard(log: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the dashboard, with their levels."""
    return [
        f"{each.levelname} {each.getMessage()}"
        for each in log.records
        if "dashboard" in each.getMessage()
    ]


def routes_of_chancy(service: Service) -> set[tuple[str, str]]:
    """The routes of Chancy's own app, with those of its plugins."""
    chancy: Any = service.create()
    api = Api(authentication_backend=SimpleAuthBackend({}))
    routes: list[BaseRoute] = api.build_starlette_app(None, chancy).routes  # type: ignore[arg-type]
    found = set()
    for route in routes:
        if isinstance(route, Route):
            found |= {
                (method, route.path)
                for method in route.methods or ()
                if method != "HEAD"
            }
        elif isinstance(route, WebSocketRoute):
            found.add(("WEBSOCKET", route.path))
        else:
            # The page, whose files the gate has a list of.
            assert isinstance(route, Mount)
            assert (route.path, route.name) == ("", "ui")
    return found


def test_each_route_of_chancy_is_listed(site: Site) -> None:
    assert routes_of_chancy(site.billing) == ROUTES.keys()


def answer(site: Site, user: str | None, method: str, path: str, id: str) -> int:
    """The status that a user gets at a route of Chancy's."""
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
def test_each_route_is_closed_but_for_what_the_role_may_do(
    site: Site, number: int, user: str | None, log: pytest.LogCaptureFixture
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
    changes = [line for line in of_dashboard(log) if "(" in line]
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
