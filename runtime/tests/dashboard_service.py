"""Two services in one process, each with its dashboard, under the real uvicorn."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import httpx
import pytest
import uvicorn
from chancy.plugins.api import Api, SimpleAuthBackend
from chancy.plugins.metrics import Metrics
from chancy.plugins.workflow import WorkflowPlugin
from chancy_runtime import (
    Chancy,
    Cron,
    CronJob,
    DashboardSessions,
    Job,
    Leadership,
    Queue,
    Worker,
    declare_queues,
    job,
    migrate,
    schedule_cron_jobs,
)
from chancy_runtime.dashboard import Role, Visitor, dashboard_router, password_login
from chancy_runtime.dashboard.passwords import PasswordLogin
from fastapi import Depends, FastAPI, Request
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from websockets.sync.client import ClientConnection, connect

from harness.commands import wait_for
from harness.databases import database, query

OPERATOR_PASSWORD = "correct horse battery"
VIEWER_PASSWORD = "staple of the viewers"
BILLING = "/dashboard/billing"
MAIL = "/dashboard/mail"
SECRET = "hunter2@example.com"
USERS = {"ada": Role.OPERATOR, "vera": Role.VIEWER}
# For each method and path of Chancy, the status for an outsider, a viewer and an operator.
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


@job()
async def greet(*, name: str, times: int) -> None: ...


def user(request: Request) -> str | None:
    """A dependency that takes a request, as in most services."""
    return request.headers.get("x-user")


def who(name: Annotated[str | None, Depends(user)]) -> Any:
    """A team's own `who`; for other names its answer is wrong."""
    if name is None:
        return None
    return Visitor(name, USERS[name]) if name in USERS else True


def show_times(function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Hides the name by changing the given dictionary, as a team may do."""
    if "name" in arguments:
        arguments["name"] = f"of {function.rpartition('.')[2]}"
    return arguments


class Service:
    """One of the services of the process."""

    def __init__(self, url: str, prefix: str, **options: Any) -> None:
        self._url = url
        self.prefix = prefix
        self._options = options
        self._running: list[Chancy] = []

    def create(self) -> Chancy:
        return Chancy(
            self._url,
            **{
                "prefix": self.prefix,
                "min_connection_pool_size": 1,
                "max_connection_pool_size": 4,
                "no_default_plugins": True,
                "plugins": [
                    *(Leadership(), Cron(), WorkflowPlugin(), Metrics()),
                    DashboardSessions(),
                ],
                "package": f"app.{self.prefix.rstrip('_')}.workers",
                **self._options,
            },
        )

    def get_chancy(self) -> Chancy:
        for chancy in self._running:
            if chancy.is_open:
                return chancy
        raise RuntimeError("Chancy is not running")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.create() as chancy:
            self._running = [chancy]
            # No worker serves this queue: its jobs stay as a test wrote them.
            kept = Queue("kept", executor=Chancy.Executor.Async, tags={"nobody"})
            default = Queue("default", executor=Chancy.Executor.Async)
            await declare_queues(chancy, [kept, default])
            greeting: Job = greet.job.with_kwargs(name="secret of the cron", times=7)
            await schedule_cron_jobs(
                chancy,
                [CronJob(job=greeting.with_unique_key("greet"), cron="0 7 1 1 *")],
            )
            async with Worker(chancy, register_signal_handlers=False):
                yield


@contextmanager
def served(app: Callable[[], FastAPI]) -> Iterator[str]:
    """Runs an app under uvicorn in a thread; yields its address."""
    config = uvicorn.Config(app, factory=True, port=0, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(
            lambda: server.started or not thread.is_alive(),
            what="the start of uvicorn",
        )
        assert server.started
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


class Secrets(dict[str, str]):
    """A secret store, and how often it was asked."""

    def __init__(self) -> None:
        super().__init__(operator=OPERATOR_PASSWORD, viewer=VIEWER_PASSWORD)
        self.asked = 0

    def read(self, name: str) -> str:
        self.asked += 1
        return self[name]


def app_of(billing: Service, mail: Service, logins: Sequence[PasswordLogin]) -> FastAPI:
    """The API: billing has the team's own `who`, mail asks for a password.

    `/behind` has both again, as if behind a proxy with a prefix; it serves as a replica.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with billing.running(), mail.running():
            yield

    app, behind = FastAPI(lifespan=lifespan), FastAPI()
    for each, login in zip((app, behind), logins, strict=True):
        each.include_router(
            dashboard_router(
                billing.get_chancy,
                who=who,
                hide_arguments=show_times,
                path="/dashboard/billing",
            )
        )
        each.include_router(
            dashboard_router(mail.get_chancy, who=login, path="/dashboard/mail")
        )
    app.mount("/behind", behind)
    return app


class Site:
    """The two services under uvicorn, and the contents of their database."""

    login: PasswordLogin

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = ""
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
        """Sends a request like the page of the dashboard."""
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
        return httpx.request(method, url, headers=headers, timeout=60, **options)

    def websocket(self, user: str | None, **options: Any) -> ClientConnection:
        """Opens the WebSocket of live events."""
        headers = {"x-user": user} if user else {}
        connection: ClientConnection = connect(
            f"{self.address.replace('http', 'ws')}{BILLING}/api/v1/ws",
            additional_headers=headers,
            **{"origin": self.address, **options},
        )
        return connection

    def job(self, prefix: str = "billing_", **columns: Any) -> str:
        """Adds a job to the queue that no worker serves; returns its id."""
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


@contextmanager
def running_site(server_url: str) -> Iterator[Site]:
    with database(server_url) as url:
        site = Site(url)
        for each in (site.billing, site.mail):
            asyncio.run(migrate(each.create()))
        logins = [
            password_login("operator", site.secrets.read, viewer_secret="viewer")
            for _ in range(2)
        ]
        site.login = logins[0]
        with served(lambda: app_of(site.billing, site.mail, logins)) as address:
            site.address = address
            yield site


def of_dashboard(log: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the dashboard, with their levels."""
    return [
        f"{each.levelname} {each.getMessage()}"
        for each in log.records
        if "dashboard" in each.getMessage()
    ]


def log_in(browser: httpx.Client, password: str, *, base: str = MAIL) -> httpx.Response:
    """Submits the form like a browser."""
    return browser.post(
        f"{base}/login",
        data={"password": password, "page": "jobs"},
        headers={"origin": str(browser.base_url).rstrip("/")},
    )


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
            # The mount of the page; the gate has a list of its files.
            assert isinstance(route, Mount)
            assert (route.path, route.name) == ("", "ui")
    return found
