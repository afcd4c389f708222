"""The routes of a dashboard; every request that is not listed is refused."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any
from urllib.parse import quote

import psycopg
from fastapi import (
    APIRouter,
    Depends,
    HTTPException,
    Request,
    WebSocket,
    WebSocketDisconnect,
)
from starlette.responses import JSONResponse, Response
from starlette.types import Message

from chancy_runtime.app import Chancy
from chancy_runtime.dashboard import reading
from chancy_runtime.dashboard.audit import log_change
from chancy_runtime.dashboard.changing import Refused, Result, body_of, change_of
from chancy_runtime.dashboard.events import heard
from chancy_runtime.dashboard.failures import database_failed
from chancy_runtime.dashboard.hiding import HideArguments, Hiding
from chancy_runtime.dashboard.origins import is_foreign, is_own
from chancy_runtime.dashboard.pages import SCRIPT, secured, sentence
from chancy_runtime.dashboard.passwords import COOKIE, PasswordLogin
from chancy_runtime.dashboard.reading import Source
from chancy_runtime.dashboard.visitors import Role, Visitor, is_visitor, one_line
from chancy_runtime.errors import WorkersError
from chancy_runtime.worker import Worker

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_API = "api/"
_WEBSOCKET = "api/v1/ws"
_LOG_IN = "login"
_LOG_OUT = "api/v1/logout"
_LONGEST_BODY = 64 * 1024
# Seconds after which `who` is called again for an open WebSocket: a log-out must end it.
_ASK_AGAIN = 5
# The key of the scope under which a WebSocket's request collects the answers of `who`.
_ASKS = "chancy_runtime.dashboard"
_NOT_LOGGED_IN = "You are not logged in."
_NO_WORKER = (
    "No worker of the service runs in this process, and the dashboard needs one: open the "
    "dashboard of the process in which the workers run."
)
_NOT_FOUND = "The dashboard has no such page."
_FOREIGN = "The request came from another site, so it was refused."
_VIEWER = "Viewers may not change anything."


def dashboard_router(
    get_chancy: Callable[[], Chancy],
    *,
    who: Callable[..., Any],
    hide_arguments: HideArguments | None = None,
    path: str = "/dashboard",
) -> APIRouter:
    """Returns Chancy's dashboard, behind a gate, as a router.

    Nothing of it is open to people for whom `who` returns no Visitor. A viewer may read
    what `reading` lists; an operator may also make the changes that `changing` lists. Each
    change and each refused change is logged in the service's log. The dashboard needs a
    Worker in the process; without one it answers 503.

    Args:
        get_chancy: Returns the running Chancy, or raises a RuntimeError.
        who: A FastAPI dependency that returns a Visitor, or None for everybody else. It
            is called for each request; for the WebSocket of live events when it opens and
            then every few seconds, with the headers and cookies of the WebSocket's request,
            even if it takes a Request. password_login() returns such a dependency.
        hide_arguments: Gets the function and the arguments of a job, and returns the
            arguments to show. Without it the values of all arguments are hidden.
        path: The path of the dashboard; each service of a process needs its own.

    Raises:
        WorkersError: `path` is not a valid path for a dashboard.
    """
    if not path.startswith("/") or path.endswith("/") or {*path} & {*"{}?#%"}:
        raise WorkersError(
            f"{path!r} is not a valid path for a dashboard: write it like "
            "/dashboard/billing, with a / in front and none at the end"
        )
    if isinstance(who, PasswordLogin):
        who.serve(get_chancy)
    gate = _Gate(get_chancy, who, hide_arguments)
    router = APIRouter()

    async def answer(
        request: Request, visitor: Annotated[Any, Depends(who)]
    ) -> Response:
        return await gate.answer(request, visitor)

    async def stream(websocket: WebSocket) -> None:
        await gate.stream(websocket)

    for pattern in (path, path + "/{rest:path}"):
        router.add_api_route(
            *(pattern, answer), methods=_METHODS, include_in_schema=False
        )
    router.add_api_websocket_route(path + "/{rest:path}", stream)
    return router


class _Gate:
    def __init__(
        self,
        get_chancy: Callable[[], Chancy],
        who: Callable[..., Any],
        hide_arguments: HideArguments | None,
    ) -> None:
        self._get_chancy = get_chancy
        self._login = who if isinstance(who, PasswordLogin) else None
        self._hiding = Hiding(hide_arguments, self._log)
        self._source: Source | None = None
        self._wrong_answers: set[str] = set()

    def _log(self) -> logging.Logger:
        return self._get_chancy().log

    def _running(self) -> Source | None:
        """Returns the source of all data; None while no Worker runs in this process."""
        try:
            chancy = self._get_chancy()
        except RuntimeError:
            return None
        workers = [each for each in chancy.workers if isinstance(each, Worker)]
        if not workers:
            return None
        source = self._source
        if (
            source is None
            or source.chancy is not chancy
            or source.worker not in workers
        ):
            self._source = source = Source(chancy, workers[0], self._hiding)
        return source

    # --- requests --------------------------------------------------------------------

    async def answer(self, request: Request, visitor: object) -> Response:
        """Answers a request; `visitor` is the answer of `who`."""
        if (asks := request.scope.get(_ASKS)) is not None:
            asks.append(visitor)
            return Response(status_code=204)
        path = str(request.path_params.get("rest", ""))
        as_page = not path.startswith(_API)
        source = self._running()
        if source is None:
            return sentence(_NO_WORKER, 503, as_page=as_page)
        try:
            return await self._answer(request, source, visitor, path)
        except Refused as refusal:
            return sentence(refusal.title, refusal.status, as_page=as_page)
        except psycopg.Error as error:
            title = database_failed(source.chancy, error)
            return sentence(title, 503, as_page=as_page)

    async def _answer(
        self, request: Request, source: Source, visitor: object, path: str
    ) -> Response:
        if self._login and request.method == "POST" and path in (_LOG_IN, _LOG_OUT):
            return await self._log_in_or_out(self._login, request, path)
        if not is_visitor(visitor):
            return await self._refuse_outsider(request, source, visitor, path)
        if request.method == "GET":
            return await self._read(request, source, path)
        return await self._change(request, source, visitor, path)

    async def _log_in_or_out(
        self, login: PasswordLogin, request: Request, path: str
    ) -> Response:
        if not is_own(request.headers):
            raise Refused(403, _FOREIGN)
        base = _base(request, path)
        if path == _LOG_IN:
            return await login.log_in(request, base, await _content(request))
        await login.log_out(request)
        answer = secured(JSONResponse({"ok": True}))
        answer.delete_cookie(COOKIE, path=quote(base), httponly=True, samesite="strict")
        return answer

    async def _refuse_outsider(
        self, request: Request, source: Source, answer: object, path: str
    ) -> Response:
        kind = type(answer).__name__
        if answer is not None and kind not in self._wrong_answers:
            self._wrong_answers.add(kind)
            source.chancy.log.error(
                "dashboard: who returned a %s, which is not a Visitor with a name and a Role, so "
                "nobody gets in: return Visitor(name, Role.VIEWER), or None",
                kind,
            )
        page = "" if path == _LOG_IN else path
        if self._login and request.method == "GET" and reading.PAGES.fullmatch(page):
            return await self._login.page(_base(request, path), page)
        raise Refused(401, _NOT_LOGGED_IN)

    async def _read(self, request: Request, source: Source, path: str) -> Response:
        is_page = reading.PAGES.fullmatch(path) is not None
        # Another site may link to a page.
        others = ("none", "same-site", "cross-site") if is_page else ("none",)
        if is_foreign(request.headers, by_person=others):
            raise Refused(403, _FOREIGN)
        if is_page:
            answer = await source.page(_base(request, path))
        elif path == "gate.js":
            return secured(Response(SCRIPT, media_type="text/javascript"))
        elif reading.FILES.fullmatch(path):
            answer = await source.file(path)
        elif path == reading.FUNCTIONS:
            answer = await source.functions()
        elif read := reading.read_of(path):
            answer = await source.read(read, path, request.query_params)
        else:
            raise Refused(404, _NOT_FOUND)
        is_kept = reading.FILES.fullmatch(path) and answer.status == 200
        response = Response(answer.body, answer.status, media_type=answer.content_type)
        return secured(response, keep=reading.FILES_ARE_KEPT if is_kept else 0)

    async def _change(
        self, request: Request, source: Source, visitor: Visitor, path: str
    ) -> Response:
        try:
            change, match = change_of(request.method, path)
            # A form of another site cannot send JSON, and its script needs CORS for that.
            content_type = request.headers.get("content-type", "").partition(";")[0]
            if not is_own(request.headers) or content_type != "application/json":
                raise Refused(403, _FOREIGN)
            if visitor.role != Role.OPERATOR:
                raise Refused(403, _VIEWER)
            body = body_of(await _content(request))
            name = one_line(visitor.name)
            results = await change.make(source.chancy, name, match, body)
        except Refused as refusal:
            what = f"{request.method} {path}"
            log_change(source.chancy, visitor, what, f"refused: {refusal.title}")
            raise
        except Exception as error:
            what = f"{request.method} {path}"
            log_change(source.chancy, visitor, what, f"failed: {type(error).__name__}")
            raise
        for result in results:
            what = f"{result.what} {result.id}"
            log_change(source.chancy, visitor, what, result.reason)
        return _answer_to(results, is_batch=path == "api/v1/jobs")

    # --- live events -----------------------------------------------------------------

    async def stream(self, websocket: WebSocket) -> None:
        """Sends live events for as long as `who` returns a visitor."""
        source = self._running()
        is_open = (
            source is not None
            and websocket.path_params.get("rest") == _WEBSOCKET
            and is_own(websocket.headers)
            and await self._lets_in(websocket)
        )
        if not is_open or source is None:
            await websocket.close(1008)
            return
        async with heard(source.worker.hub) as texts, asyncio.TaskGroup() as tasks:
            await websocket.accept()
            sending = tasks.create_task(self._send(websocket, texts))
            # Chancy's page sends nothing, so this waits for the end of the connection.
            while (await websocket.receive())["type"] != "websocket.disconnect":
                pass
            sending.cancel()

    async def _send(self, websocket: WebSocket, texts: "asyncio.Queue[str]") -> None:
        ask_at = time.monotonic() + _ASK_AGAIN
        with suppress(WebSocketDisconnect):
            while True:
                text = None
                with suppress(TimeoutError):
                    async with asyncio.timeout(ask_at - time.monotonic()):
                        text = await texts.get()
                if time.monotonic() >= ask_at:
                    if not await self._lets_in(websocket):
                        await websocket.close(1008)
                        return
                    ask_at = time.monotonic() + _ASK_AGAIN
                if text is not None:
                    await websocket.send_text(text)

    async def _lets_in(self, websocket: WebSocket) -> bool:
        """Whether `who` returns a visitor for the request that opened a WebSocket.

        It is called through the route of HTTP requests: most dependencies take a Request,
        which the route of a WebSocket does not have.
        """
        asks: list[object] = []
        scope = {**websocket.scope, "type": "http", "method": "GET", _ASKS: asks}
        scope["scheme"] = "https" if websocket.url.scheme == "wss" else "http"

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(_message: Message) -> None: ...

        try:
            await websocket.app.router(scope, receive, send)
        except HTTPException:
            return False
        return bool(asks) and is_visitor(asks[-1])


def _base(request: Request, rest: str) -> str:
    """Returns the path of the dashboard in the browser."""
    path = str(request.scope["path"])
    root = str(request.scope.get("root_path", "")).rstrip("/")
    if not path.startswith(f"{root}/"):
        path = root + path
    return path.removesuffix(rest).rstrip("/")


async def _content(request: Request) -> bytes:
    """Returns the body of a request.

    Raises:
        Refused: The body is too long.
    """
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _LONGEST_BODY:
            raise Refused(413, f"The body has more than {_LONGEST_BODY} bytes.")
    return content


def _answer_to(results: list[Result], *, is_batch: bool) -> Response:
    if is_batch:
        lines = [
            {"id": each.id, "status": "skipped", "message": each.reason}
            if each.reason
            else {"id": each.id, "status": "completed"}
            for each in results
        ]
        is_ok = not any(each.reason for each in results)
        return secured(JSONResponse({"ok": is_ok, "results": lines}))
    (result,) = results
    if result.reason:
        raise Refused(result.status, result.reason)
    return secured(JSONResponse({"ok": True}))
