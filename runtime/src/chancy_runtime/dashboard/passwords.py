"""The built-in login: one password for all operators, and one for all viewers."""

import asyncio
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote

import psycopg
from fastapi import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response

from chancy_runtime.app import Chancy
from chancy_runtime.dashboard import sessions
from chancy_runtime.dashboard.audit import log_visit
from chancy_runtime.dashboard.failures import database_failed
from chancy_runtime.dashboard.origins import is_encrypted
from chancy_runtime.dashboard.pages import login_form, secured
from chancy_runtime.dashboard.reading import PAGES
from chancy_runtime.dashboard.visitors import Role, Visitor
from chancy_runtime.errors import WorkersError
from chancy_runtime.modes import Mode

COOKIE = "chancy_dashboard"
_SHORTEST = 12
# Seconds for which a password is cached, so that not every request asks the secret store.
_PASSWORDS_ARE_KEPT = 60
_WINDOW = 60
_MOST_OF_ONE = 5
_MOST_OF_ALL = 50
_CLOSED = "The dashboard is closed: the log of the service says why."


@dataclass
class _Throttle:
    """Counts the attempts to log in of the last minute, in this process."""

    _attempts: deque[tuple[float, str]] = field(default_factory=deque)
    _quiet_until: float = 0

    def takes(self, address: str) -> bool:
        """Whether one more attempt is allowed; it then counts."""
        now = time.monotonic()
        while self._attempts and self._attempts[0][0] < now - _WINDOW:
            self._attempts.popleft()
        of_one = sum(1 for _, each in self._attempts if each == address)
        if of_one >= _MOST_OF_ONE or len(self._attempts) >= _MOST_OF_ALL:
            return False
        self._attempts.append((now, address))
        return True

    def is_news(self) -> bool:
        """Whether a refused attempt is logged; it is, once a minute."""
        now = time.monotonic()
        if now < self._quiet_until:
            return False
        self._quiet_until = now + _WINDOW
        return True

    def forget_last(self, address: str) -> None:
        """Forgets a successful attempt; the failed attempts before it still count."""
        for attempt in reversed(self._attempts):
            if attempt[1] == address:
                self._attempts.remove(attempt)
                return


class PasswordLogin:
    """A `who` for dashboard_router(), which then has a login page and a log-out.

    password_login() creates it, for one dashboard.
    """

    def __init__(
        self,
        secret_name: str,
        get_secret_value: Callable[[str], str],
        *,
        viewer_secret: str | None = None,
    ) -> None:
        self._secrets = {Role.OPERATOR: secret_name}
        if viewer_secret is not None:
            self._secrets[Role.VIEWER] = viewer_secret
        self._get_secret_value = get_secret_value
        self._get_chancy: Callable[[], Chancy] | None = None
        self._throttle = _Throttle()
        self._logged: set[str] = set()
        self._passwords: dict[Role, str] = {}
        self._read_again = 0.0
        self._reading = asyncio.Lock()
        # Anybody may send cookies: finding their sessions uses one connection at a time.
        self._looking = asyncio.Lock()

    def serve(self, get_chancy: Callable[[], Chancy]) -> None:
        """Sets the Chancy of the dashboard; its database has the sessions.

        Raises:
            WorkersError: This is the login of another dashboard already.
        """
        if self._get_chancy not in (None, get_chancy):
            raise WorkersError(
                "two dashboards have the same password_login() as `who`: call "
                "password_login() once for each"
            )
        self._get_chancy = get_chancy

    async def __call__(self, connection: HTTPConnection) -> Visitor | None:
        """Returns the visitor of the session in the request's cookie.

        Raises:
            HTTPException: The database did not answer.
        """
        token = connection.cookies.get(COOKIE)
        if not token or self._get_chancy is None:
            return None
        try:
            chancy = self._get_chancy()
        except RuntimeError:  # Chancy has not started.
            return None
        if chancy.mode is Mode.OFF:
            return None
        ids = await self._ids(chancy, token)
        if not ids:
            return None
        try:
            async with self._looking:
                found = await sessions.find(chancy, [*ids])
        except psycopg.Error as error:
            raise HTTPException(503, database_failed(chancy, error)) from None
        role = next((role for id, role in ids.items() if id in found), None)
        return Visitor(role.value, role) if role else None

    async def log_in(self, request: Request, base: str, content: bytes) -> Response:
        """Answers the login form: begins a session, or shows why it does not.

        Args:
            base: The path of the dashboard.
            content: The body of the request.
        """
        assert self._get_chancy
        chancy = self._get_chancy()
        values = dict(parse_qsl(content.decode("ascii", "replace")))
        page = values.get("page", "")
        if not PAGES.fullmatch(page):
            page = ""
        is_safe = is_encrypted(request.headers["origin"])
        if is_safe is False:
            note = "Log in over https: over http others could read the password."
            return login_form(base, page, note=note, status=400)
        passwords = await self._usable_passwords(chancy)
        if not passwords:
            return login_form(base, page, note=_CLOSED)
        address = request.client.host if request.client else ""
        if not self._throttle.takes(address):
            if self._throttle.is_news():
                chancy.log.warning(
                    "dashboard: too many attempts to log in (%s)", address
                )
            note = "Too many attempts: wait a minute."
            answer = login_form(base, page, note=note, status=429)
            answer.headers["Retry-After"] = str(_WINDOW)
            return answer
        given = values.get("password", "")
        role = _role_of(given, passwords)
        if role is None:
            chancy.log.warning(
                "dashboard: an attempt to log in failed: wrong password (%s)", address
            )
            return login_form(base, page, note="The password is wrong.")
        token = secrets.token_urlsafe(32)
        await sessions.begin(chancy, sessions.id_of(token, role, given))
        self._throttle.forget_last(address)
        log_visit(chancy, "dashboard: %s logged in (%s)", role, address)
        answer = secured(RedirectResponse(f"{base}/{page}", 303))
        answer.set_cookie(
            COOKIE,
            token,
            max_age=sessions.HOURS * 3600,
            path=quote(base),
            secure=is_safe is True,
            httponly=True,
            samesite="strict",
        )
        return answer

    async def log_out(self, request: Request) -> None:
        """Ends the session of the request's cookie, on every replica.

        Raises:
            psycopg.Error: The database did not answer, or refused.
        """
        assert self._get_chancy
        chancy = self._get_chancy()
        visitor = await self(request)
        if visitor is not None:
            ids = await self._ids(chancy, request.cookies[COOKIE])
            await sessions.end(chancy, [*ids])
            log_visit(chancy, "dashboard: %s logged out", visitor.role)

    async def page(self, base: str, page: str) -> Response:
        """Answers somebody who is not logged in."""
        assert self._get_chancy
        is_open = await self._usable_passwords(self._get_chancy())
        return login_form(base, page, note="" if is_open else _CLOSED)

    async def _ids(self, chancy: Chancy, token: str) -> dict[bytes, Role]:
        """Returns the ids that a session with this token may have."""
        passwords = await self._usable_passwords(chancy)
        return {
            sessions.id_of(token, role, password): role
            for role, password in passwords.items()
        }

    async def _usable_passwords(self, chancy: Chancy) -> dict[Role, str]:
        """Returns the passwords; none while the dashboard is closed. The log says why."""
        if not sessions.has_table(chancy):
            self._say(
                chancy,
                "for everybody",
                f"add DashboardSessions() to the plugins in {chancy.package}, and "
                f"{chancy.migrate_command}",
            )
            return {}
        async with self._reading:
            if time.monotonic() >= self._read_again:
                self._passwords = await asyncio.to_thread(self._read, chancy)
                self._read_again = time.monotonic() + _PASSWORDS_ARE_KEPT
            return self._passwords

    def _read(self, chancy: Chancy) -> dict[Role, str]:
        passwords: dict[Role, str] = {}
        for role, name in self._secrets.items():
            try:
                password = _without_line_end(self._get_secret_value(name))
            except Exception as error:  # noqa: BLE001  # whatever a secret store raises
                reason = f"the secret {name} cannot be read ({error}): set it"
            else:
                reason = _weakness(name, password, passwords)
            if reason:
                self._say(chancy, f"for {role}s", reason)
            else:
                passwords[role] = str(password)
        return passwords

    def _say(self, chancy: Chancy, whom: str, reason: str) -> None:
        if reason not in self._logged:
            self._logged.add(reason)
            chancy.log.warning("the dashboard is closed %s: %s", whom, reason)


def _without_line_end(value: object) -> object:
    """Returns a secret without the line end that files and editors add."""
    return value.rstrip("\r\n") if isinstance(value, str) else value


def _weakness(name: str, password: object, others: dict[Role, str]) -> str:
    """Returns why a password cannot be used, and what to do; empty if it can be used."""
    if not isinstance(password, str) or not password:
        return f"the secret {name} has no value: set it"
    if len(password) < _SHORTEST:
        return (
            f"the password in the secret {name} has {len(password)} characters: set one "
            f"of {_SHORTEST} or more"
        )
    if password in others.values():
        return f"operators have the same password: change the secret {name}"
    return ""


def _role_of(given: str, passwords: dict[Role, str]) -> Role | None:
    """Returns the role whose password was given, in a time that does not depend on it."""
    found = None
    for role, password in passwords.items():
        if hmac.compare_digest(_digest(given), _digest(password)):
            found = role
    return found


def _digest(text: str) -> bytes:
    return hmac.digest(b"", text.encode(errors="surrogatepass"), "sha256")


def password_login(
    secret_name: str,
    get_secret_value: Callable[[str], str],
    *,
    viewer_secret: str | None = None,
) -> PasswordLogin:
    """Returns a `who` for dashboard_router() that asks for a password of 12 characters or more.

    A session ends after 8 hours, when its owner logs out, and when the password changes, on
    every replica. The service's Chancy needs the plugin DashboardSessions; `migrate` creates
    its table. While the plugin, the secret or its value is missing, the dashboard is closed
    and the log says why. Failed attempts are limited in each process: 5 a minute from one
    address, 50 from all.

    Args:
        secret_name: The name of the secret with the operators' password.
        get_secret_value: Returns the value of a secret. It is called at most once a minute.
        viewer_secret: Name of the secret with the viewers' password; without it there
            are operators only.
    """
    return PasswordLogin(secret_name, get_secret_value, viewer_secret=viewer_secret)
