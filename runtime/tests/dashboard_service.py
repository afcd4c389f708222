"""Two services in one process, each with its dashboard, under the real uvicorn."""

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import uvicorn
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
    schedule_cron_jobs,
)
from chancy_runtime.dashboard import Role, Visitor, dashboard_router, password_login
from fastapi import Depends, FastAPI, Request

from harness.commands import wait_for

OPERATOR_PASSWORD = "correct horse battery"
VIEWER_PASSWORD = "staple of the viewers"
USERS = {"ada": Role.OPERATOR, "vera": Role.VIEWER}


@job()
async def greet(*, name: str, times: int) -> None: ...


def user(request: Request) -> str | None:
    """As most services have it: a dependency that wants a request."""
    return request.headers.get("x-user")


def who(name: Annotated[str | None, Depends(user)]) -> Any:
    """The team's own `who`; a name that is neither is an answer that is wrong."""
    if name is None:
        return None
    return Visitor(name, USERS[name]) if name in USERS else True


def show_times(function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Hides the name in place, as a team may write it."""
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
            # No worker takes from this queue: its jobs stay as a test wrote them.
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
            timeout=30,
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

    def get(self, name: str) -> str:  # type: ignore[override]
        self.asked += 1
        return self[name]


def app_of(billing: Service, mail: Service, secrets: Secrets) -> FastAPI:
    """The API: billing has a `who` of the team's, mail asks for a password.

    `/behind` has both again, as behind a proxy with a prefix, and stands for a replica.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with billing.running(), mail.running():
            yield

    app, behind = FastAPI(lifespan=lifespan), FastAPI()
    for each in (app, behind):
        login = password_login("operator", secrets.get, viewer_secret="viewer")
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


logging.getLogger("app").setLevel(logging.INFO)
