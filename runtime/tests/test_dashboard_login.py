"""One password lets operators in, on every replica, until they log out."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from chancy_runtime import DashboardSessions, WorkersError
from chancy_runtime.dashboard import dashboard_router, password_login, passwords
from dashboard_service import (
    MAIL,
    OPERATOR_PASSWORD,
    VIEWER_PASSWORD,
    Service,
    Site,
    log_in,
    of_dashboard,
)
from fastapi import FastAPI
from fastapi.testclient import TestClient

from harness.commands import wait_for
from harness.databases import query

pytestmark = pytest.mark.xdist_group("dashboard")

REPLICA = f"/behind{MAIL}"
JOBS = "/api/v1/jobs"
WRONG = "wrong password here"


@pytest.fixture
def browser(site: Site) -> Iterator[httpx.Client]:
    site.login._throttle = passwords._Throttle()
    site.login._read_again = 0
    with httpx.Client(base_url=site.address) as browser:
        yield browser
    query(site.url, "DELETE FROM mail_dashboard_sessions")


def on_replica(site: Site, browser: httpx.Client) -> int:
    """The answer of another process of the service to the same browser."""
    cookie = browser.cookies.get(passwords.COOKIE)
    headers = {"cookie": f"{passwords.COOKIE}={cookie}"}
    return httpx.get(f"{site.address}{REPLICA}{JOBS}", headers=headers).status_code


def change(browser: httpx.Client, path: str) -> int:
    origin = str(browser.base_url).rstrip("/")
    headers = {"origin": origin, "content-type": "application/json"}
    return browser.post(f"{MAIL}/api/v1/{path}", headers=headers).status_code


def test_an_outsider_sees_the_form_and_nothing_else(
    browser: httpx.Client, site: Site
) -> None:
    page = browser.get(f"{MAIL}/jobs/1")
    assert page.status_code == 401
    assert f'action="{MAIL}/login"' in page.text
    assert 'value="jobs/1"' in page.text
    assert "script" not in page.text
    assert "'sha256-" in page.headers["content-security-policy"]
    assert 'value=""' in browser.get(f"{MAIL}/login").text
    for path in ("/gate.js", "/logo_small.png", JOBS, "/api/v1/configuration"):
        assert browser.get(f"{MAIL}{path}").status_code == 401
    assert change(browser, "queues/kept/pause") == 401


def test_a_session_holds_on_every_replica_until_the_log_out(
    browser: httpx.Client, site: Site, app_log: pytest.LogCaptureFixture
) -> None:
    answer = log_in(browser, OPERATOR_PASSWORD)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{MAIL}/jobs")
    cookie = answer.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=strict", f"Path={MAIL}", "Max-Age=28800"):
        assert part in cookie.split("; ")
    assert browser.get(f"{MAIL}/jobs").status_code == 200
    assert change(browser, "queues/kept/resume") == 200
    assert on_replica(site, browser) == 200
    token = browser.cookies[passwords.COOKIE]
    ((id, hours),) = query(
        site.url,
        "SELECT encode(id, 'hex'), extract(epoch FROM expires_at - now()) / 3600 "
        "FROM mail_dashboard_sessions",
    )
    assert len(id) == 64
    assert token.encode().hex() not in id
    assert 7.9 < hours <= 8

    headers = {"origin": site.address, "cookie": f"{passwords.COOKIE}={token}"}
    foreign = httpx.post(
        f"{site.address}{REPLICA}/api/v1/logout",
        headers={**headers, "origin": "https://evil.example"},
    )
    assert (foreign.status_code, on_replica(site, browser)) == (403, 200)
    ended = httpx.post(f"{site.address}{REPLICA}/api/v1/logout", headers=headers)

    assert ended.status_code == 200
    assert 'chancy_dashboard=""' in ended.headers["set-cookie"]
    assert on_replica(site, browser) == 401
    assert browser.get(f"{MAIL}{JOBS}").status_code == 401
    assert [line for line in of_dashboard(app_log) if "resumed" not in line] == [
        "INFO dashboard: operator logged in (127.0.0.1)",
        "INFO dashboard: operator logged out",
    ]


def test_changes_are_logged_even_if_the_log_drops_info(
    browser: httpx.Client, site: Site, app_log: pytest.LogCaptureFixture
) -> None:
    """Without configured logging, Python drops INFO."""
    app_log.set_level(logging.WARNING, logger="app")
    log_in(browser, OPERATOR_PASSWORD)
    assert change(browser, "queues/kept/resume") == 200
    assert of_dashboard(app_log) == [
        "WARNING dashboard: operator logged in (127.0.0.1)",
        "WARNING dashboard: operator (operator): resumed kept: done",
    ]


def test_a_viewer_has_a_password_of_its_own(browser: httpx.Client) -> None:
    log_in(browser, VIEWER_PASSWORD)
    assert browser.get(f"{MAIL}{JOBS}").status_code == 200
    assert change(browser, "queues/kept/pause") == 403


def test_another_password_ends_all_sessions(
    browser: httpx.Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(browser, OPERATOR_PASSWORD)
    asked = site.secrets.asked
    assert browser.get(f"{MAIL}{JOBS}").status_code == 200
    assert site.secrets.asked == asked
    monkeypatch.setattr(site.login, "_read_again", 0)
    monkeypatch.setitem(site.secrets, "operator", "another long password\n")
    assert browser.get(f"{MAIL}{JOBS}").status_code == 401
    assert log_in(browser, "another long password").status_code == 303


def test_a_session_ends_after_its_time(browser: httpx.Client, site: Site) -> None:
    log_in(browser, OPERATOR_PASSWORD)
    query(site.url, "UPDATE mail_dashboard_sessions SET expires_at = now()")
    assert browser.get(f"{MAIL}{JOBS}").status_code == 401
    log_in(browser, OPERATOR_PASSWORD)
    assert len(query(site.url, "SELECT id FROM mail_dashboard_sessions")) == 1


def test_a_row_that_somebody_else_wrote_opens_no_session(
    browser: httpx.Client, site: Site
) -> None:
    log_in(browser, OPERATOR_PASSWORD)
    ((id,),) = query(site.url, "SELECT id FROM mail_dashboard_sessions")
    for token in (id.hex(), "guess"):
        query(
            site.url,
            "INSERT INTO mail_dashboard_sessions "
            "VALUES (sha256(%s::bytea), now() + interval '1 day')",
            token.encode(),
        )
        browser.cookies.clear()
        browser.cookies.set(passwords.COOKIE, token)
        assert browser.get(f"{MAIL}{JOBS}").status_code == 401


def test_attempts_are_limited(
    browser: httpx.Client, site: Site, app_log: pytest.LogCaptureFixture
) -> None:
    statuses = [log_in(browser, WRONG).status_code for _ in range(6)]
    blocked = log_in(browser, OPERATOR_PASSWORD)
    of_attempts = of_dashboard(app_log)
    assert statuses == [401] * 5 + [429]
    assert (blocked.status_code, blocked.headers["retry-after"]) == (429, "60")
    assert not browser.cookies
    assert WRONG not in app_log.text
    assert of_attempts == [
        "WARNING dashboard: an attempt to log in failed: wrong password (127.0.0.1)"
    ] * 5 + ["WARNING dashboard: too many attempts to log in (127.0.0.1)"]


def test_a_viewer_cannot_guess_the_password_of_operators(
    browser: httpx.Client,
) -> None:
    statuses = []
    for _ in range(2):
        statuses += [log_in(browser, WRONG).status_code for _ in range(4)]
        statuses.append(log_in(browser, VIEWER_PASSWORD).status_code)
    assert statuses == [401] * 4 + [303] + [401] + [429] * 4


def test_an_outsider_takes_one_connection_of_the_workers_at_a_time(site: Site) -> None:
    url = urlsplit(site.address)
    request = (
        f"GET {MAIL}{JOBS} HTTP/1.1\r\nhost: {url.netloc}\r\n"
        f"cookie: {passwords.COOKIE}=guess\r\nconnection: close\r\n\r\n"
    )
    with ExitStack() as stack:
        lock = stack.enter_context(psycopg.connect(site.url))
        lock.execute("LOCK mail_dashboard_sessions")
        outsiders = [
            stack.enter_context(socket.create_connection((url.hostname, url.port)))
            for _ in range(8)
        ]
        for outsider in outsiders:
            outsider.sendall(request.encode())
        waiting = (
            "SELECT count(*) FROM pg_locks WHERE NOT granted "
            "AND relation = 'mail_dashboard_sessions'::regclass"
        )
        wait_for(lambda: query(site.url, waiting) != [(0,)], what="a request")
        # This request came later, but is answered.
        assert httpx.get(f"{site.address}{MAIL}/").status_code == 401
        assert query(site.url, waiting) == [(1,)]
        lock.rollback()
        for outsider in outsiders:
            assert outsider.recv(100).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("origin", "host", "status", "is_secure"),
    [
        ("https://billing.example", "billing.example", 303, True),
        ("http://billing.example", "billing.example", 400, None),
        ("http://localhost:8000", "localhost:8000", 303, False),
        ("http://[::1]:8000", "[::1]:8000", 303, False),
        ("http://[", "[", 400, None),
        ("https://evil.example", "billing.example", 403, None),
    ],
)
def test_the_cookie_goes_over_https(
    browser: httpx.Client, origin: str, host: str, status: int, is_secure: bool | None
) -> None:
    answer = browser.post(
        f"{MAIL}/login",
        data={"password": OPERATOR_PASSWORD, "page": "//evil.example"},
        headers={"origin": origin, "host": host},
    )
    assert answer.status_code == status
    if status == 303:
        assert answer.headers["location"] == f"{MAIL}/"
        assert ("Secure" in answer.headers["set-cookie"]) is is_secure
    else:
        assert "set-cookie" not in answer.headers


def closed(
    site: Site, read: Callable[[str], str], app_log: pytest.LogCaptureFixture
) -> list[str]:
    """Tries to log in where a password cannot be used; returns the lines of the log."""
    app = FastAPI()
    login = password_login("operator", read, viewer_secret="viewer")
    app.include_router(dashboard_router(site.mail.get_chancy, who=login, path=MAIL))
    with TestClient(app, base_url="http://localhost") as browser:
        assert "The dashboard is closed" in browser.get(MAIL).text
        for password in ("", OPERATOR_PASSWORD):
            answer = browser.post(
                f"{MAIL}/login",
                data={"password": password},
                headers={"origin": "http://localhost"},
            )
            assert answer.status_code == 401
    return [
        line.partition("the dashboard is closed ")[2] for line in of_dashboard(app_log)
    ]


@pytest.mark.parametrize(
    ("secrets", "reasons"),
    [
        (
            {},
            ["for operators: the secret operator cannot be read ('operator'): set it"],
        ),
        ({"operator": ""}, ["for operators: the secret operator has no value: set it"]),
        (
            {"operator": "short"},
            [
                "for operators: the password in the secret operator has 5 characters: set "
                "one of 12 or more"
            ],
        ),
    ],
)
def test_without_a_password_it_is_closed_and_the_log_says_why_once(
    site: Site,
    secrets: dict[str, str],
    reasons: list[str],
    app_log: pytest.LogCaptureFixture,
) -> None:
    lines = closed(site, secrets.__getitem__, app_log)
    assert lines == [
        *reasons,
        "for viewers: the secret viewer cannot be read ('viewer'): set it",
    ]


def test_without_its_table_it_is_closed(
    site: Site, app_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = site.mail.get_chancy().plugins
    monkeypatch.delitem(plugins, DashboardSessions.get_identifier())
    assert closed(site, site.secrets.read, app_log) == [
        "for everybody: add DashboardSessions() to the plugins in app.mail.workers, and "
        "run python -m app.mail.workers migrate"
    ]


def test_viewers_cannot_have_the_password_of_operators(
    browser: httpx.Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = site.login._read(site.mail.get_chancy())
    assert [*found] == ["operator", "viewer"]
    monkeypatch.setitem(site.secrets, "viewer", OPERATOR_PASSWORD)
    assert [*site.login._read(site.mail.get_chancy())] == ["operator"]


def test_two_dashboards_cannot_share_a_login() -> None:
    login = password_login("operator", str)
    dashboard_router(Service("", "billing_").get_chancy, who=login)
    with pytest.raises(WorkersError, match="once for each"):
        dashboard_router(Service("", "mail_").get_chancy, who=login)


@pytest.mark.parametrize("root", ["", "/x", "/dashboard"])
def test_the_form_is_sent_to_where_the_browser_is(site: Site, root: str) -> None:
    app = FastAPI()
    login = password_login("operator", site.secrets.read)
    app.include_router(dashboard_router(site.mail.get_chancy, who=login, path="/mail"))
    page = TestClient(app, root_path=root).get("/mail/jobs")
    assert f'action="{root}/mail/login"' in page.text


def test_while_the_database_does_not_answer_nobody_gets_in(
    browser: httpx.Client, site: Site, app_log: pytest.LogCaptureFixture
) -> None:
    log_in(browser, OPERATOR_PASSWORD)
    table = "ALTER TABLE mail_{}dashboard_sessions RENAME TO mail_{}dashboard_sessions"
    query(site.url, table.format("", "old_"))
    try:
        answer = browser.get(f"{MAIL}{JOBS}")
    finally:
        query(site.url, table.format("old_", ""))
    assert (answer.status_code, "the log of the service" in answer.text) == (503, True)
    assert "relation" not in answer.text
    assert 'relation "mail_dashboard_sessions" does not exist' in app_log.text
