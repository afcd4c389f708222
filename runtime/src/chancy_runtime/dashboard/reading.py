"""Chancy's own page and the data that it requests, with arguments hidden."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import psycopg
from chancy.plugins.api import Api, SimpleAuthBackend
from psycopg import errors
from starlette.types import ASGIApp, Message

from chancy_runtime.app import Chancy
from chancy_runtime.compat import dashboard_token
from chancy_runtime.dashboard.hiding import Hiding
from chancy_runtime.jobs.rows import statement
from chancy_runtime.worker import Worker

# The paths of Chancy's page; all of them get the same HTML file.
PAGES = re.compile(
    r"|dashboard|jobs|queues|workers|crons|workflows|metrics|gossip|system"
    r"|(jobs|queues|workers|crons|workflows|metrics)/[^/]+"
)
FILES = re.compile(r"assets/\w[\w-]*(\.[\w-]+)+|logo_small\.png")
FILES_ARE_KEPT = 3600
UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_PAGED = ("filters", "limit", "before", "pagination")
# Seconds for which the names of all functions are cached: finding them reads all jobs.
_FUNCTIONS_ARE_KEPT = 60
_ELSEWHERE = re.compile(r'\s*<link\b[^>]*\bhref="https?:[^>]*>')


@dataclass(frozen=True)
class Answer:
    """An answer for the browser."""

    status: int
    body: bytes
    content_type: str = "application/json"


@dataclass(frozen=True)
class Read:
    """A route of Chancy that may be read.

    Args:
        path: A pattern for the path below the dashboard's path.
        show: Returns the parts of Chancy's answer that may be shown.
        query: The parameters that are passed on to Chancy.
    """

    path: str
    show: Callable[[Hiding, Any], Any]
    query: tuple[str, ...] = ()


def _all(_hiding: Hiding, answer: Any) -> Any:
    return answer


def _jobs(hiding: Hiding, answer: Any) -> Any:
    if isinstance(answer, list):
        return [hiding.job(each) for each in answer]
    return {
        "items": [hiding.job(each) for each in answer["items"]],
        "has_more": answer["has_more"],
        "next_cursor": answer["next_cursor"],
    }


def _with_job(hiding: Hiding, answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "job": hiding.job(answer["job"])}


def _crons(hiding: Hiding, answer: list[Any]) -> list[Any]:
    return [_with_job(hiding, each) for each in answer]


def _workflow(hiding: Hiding, answer: dict[str, Any]) -> dict[str, Any]:
    steps = {
        name: _with_job(hiding, step) for name, step in answer.get("steps", {}).items()
    }
    return {**answer, "steps": steps}


# Chancy gets no other requests, and only with GET.
READS = (
    Read("api/v1/configuration", _all),
    Read("api/v1/system", _all),
    Read("api/v1/plugins", _all),
    Read("api/v1/queues", _all),
    Read("api/v1/workers", _all),
    Read("api/v1/jobs", _jobs, (*_PAGED, "state", "queue", "func")),
    Read(f"api/v1/jobs/{UUID}", lambda hiding, answer: hiding.job(answer)),
    Read("api/v1/crons", _crons),
    Read("api/v1/workflows", _all, _PAGED),
    Read(f"api/v1/workflows/{UUID}", _workflow),
    Read("api/v1/metrics", _all),
    Read(
        "api/v1/metrics/[^/]+",
        _all,
        ("resolution", "range", "limit", "start", "end", "worker_id"),
    ),
)
FUNCTIONS = "api/v1/jobs/functions"


def read_of(path: str) -> Read | None:
    """Returns the route of a path, or None if it may not be read."""
    return next((each for each in READS if re.fullmatch(each.path, path)), None)


@dataclass
class Source:
    """Chancy's own app for one Worker; only this process can send requests to it."""

    chancy: Chancy
    worker: Worker
    hiding: Hiding
    _functions: tuple[float, list[str]] | None = None
    # Reading uses one connection of the Worker's pool at a time.
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        # It has no users, and the key of its tokens is random and stays in this object.
        api = Api(authentication_backend=SimpleAuthBackend({}))
        self._app = api.build_starlette_app(self.worker, self.chancy)
        self._key = api.secret_key

    async def read(self, read: Read, path: str, query: Mapping[str, str]) -> Answer:
        """Asks Chancy, and returns the parts of its answer that may be shown.

        Raises:
            psycopg.Error: The database did not answer, or refused.
        """
        passed = {name: query[name] for name in read.query if name in query}
        async with self._reading:
            try:
                answer = await self._ask(path, passed)
            except Exception as error:
                if not (passed and _is_of_parameters(error)):
                    raise
                title = f"These parameters have invalid values: {', '.join(passed)}."
                return Answer(422, json.dumps({"title": title}).encode())
        content = json.loads(answer.body)
        if answer.status == 200:
            shown = read.show(self.hiding, content)
        else:
            title = content.get("title") or "not found"
            shown = {"title": title}
        return Answer(answer.status, json.dumps(shown).encode())

    async def functions(self) -> Answer:
        """Returns the names of the functions of all jobs.

        Chancy 0.26 keeps one list of them for all services of a process.

        Raises:
            psycopg.Error: The database did not answer, or refused.
        """
        async with self._reading:
            now = time.monotonic()
            if self._functions is None or now > self._functions[0]:
                names = await self._find_functions()
                self._functions = (now + _FUNCTIONS_ARE_KEPT, names)
        return Answer(200, json.dumps(self._functions[1]).encode())

    async def _find_functions(self) -> list[str]:
        query = statement(
            "SELECT DISTINCT func FROM {jobs} ORDER BY func", self.chancy.prefix
        )
        async with self.chancy.pool.connection() as connection:
            cursor = await connection.execute(query)
            return [name for (name,) in await cursor.fetchall() if name is not None]

    async def page(self, base: str) -> Answer:
        """Returns Chancy's page, without the links to files of other sites.

        Args:
            base: The path of the dashboard.
        """
        answer = await self._ask("", {}, base=base)
        text = _ELSEWHERE.sub("", answer.body.decode())
        script = '    <script src="./gate.js"></script>\n  </head>'
        return Answer(
            answer.status,
            text.replace("  </head>", script, 1).encode(),
            answer.content_type,
        )

    async def file(self, path: str) -> Answer:
        """Returns a file of Chancy's page."""
        return await self._ask(path, {})

    async def _ask(
        self, path: str, query: Mapping[str, str], *, base: str = ""
    ) -> Answer:
        """Asks Chancy's app; of the browser's request it gets only the path and `query`."""
        token = dashboard_token(self._key)
        return await _get(
            self._app,
            {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "path": f"{base}/{path}",
                "root_path": base,
                "query_string": urlencode(query).encode(),
                "headers": [
                    (b"host", b"dashboard"),
                    (b"authorization", f"Bearer {token}".encode()),
                ],
            },
        )


def _is_of_parameters(error: Exception) -> bool:
    """Whether Chancy, psycopg or PostgreSQL rejected a parameter of the request."""
    if isinstance(error, psycopg.Error):
        # psycopg raises a plain ProgrammingError for a value that it has no type for.
        mistaken = (psycopg.DataError, errors.UndefinedFunction)
        return isinstance(error, mistaken) or type(error) is psycopg.ProgrammingError
    return isinstance(error, TypeError | ValueError)


async def _get(app: ASGIApp, scope: dict[str, Any]) -> Answer:
    start: Message = {}
    body: list[bytes] = []
    has_ended = asyncio.Event()
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await has_ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        body.append(message.get("body", b""))
        if not message.get("more_body", False):
            has_ended.set()

    await app(scope, receive, send)
    headers = dict(start["headers"])
    content_type = headers.get(b"content-type", b"application/octet-stream")
    return Answer(start["status"], b"".join(body), content_type.decode())
