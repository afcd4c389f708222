"""The dashboard of a rendered backend, in a real Chromium."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, WebSocket, expect

from harness.probes import wait_until_ready

from .browsers import TIMEOUT, chromium
from .support import (
    TEMPLATE,
    Service,
    copy,
    database,
    migrate,
    query,
    service,
    wait_for,
)

SECRET = "DASHBOARD-PASSWORD"
PASSWORD = "correct horse battery"
VARIABLES = {"DASHBOARD_PASSWORD": PASSWORD}
JOB = '''"""The send_digest job."""

from pathlib import Path

from chancy_runtime import job


@job(queue="default")
async def send_digest(*, note: str = "cron") -> None:
    """Fails until somebody mends what it needs."""
    if not Path("mended").exists():
        raise RuntimeError(f"no mail server for {note}")
'''
ROUTE = """
from app.shipping.workers.chancy_instance import get_chancy as get_shipping
from app.shipping.workers.pack_parcel.worker import pack_parcel


@app.post("/parcels")
async def push_parcel() -> dict[str, str]:
    job = pack_parcel.job.with_kwargs(note="a red parcel")
    return {"id": str((await get_shipping().push(job)).identifier)}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@dataclass
class Visit:
    """A new browser session, with the errors and events of its page.

    Args:
        errors: Errors of the page's own scripts, and violations of its content policy.
        events: Messages from the WebSocket.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            self.errors.append(message.text)

    def hear(self, socket: WebSocket) -> None:
        socket.on("framereceived", lambda text: self.events.append(str(text)))

    def has_heard(self) -> bool:
        self.page.evaluate("0")  # Playwright delivers events only during its calls.
        return bool(self.events)

    def end(self) -> None:
        self.page.context.close()
        self.page.context.close()
        assert self.errors == []


def visit(browser: Browser, running: Service, har: Path | None = None) -> Visit:
    """Opens a page; everything that it loads is recorded in `har`."""
    context = browser.new_context(
        base_url=running.address, record_har_path=har, record_har_content="embed"
    )
    context.set_default_timeout(TIMEOUT)
    found = Visit(context.new_page())
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.on("console", found.note)
    found.page.on("websocket", found.hear)
    return found


def log_in(page: Page, dashboard: str, password: str = PASSWORD) -> None:
    page.goto(dashboard)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def press(page: Page, button: str, path: str) -> tuple[int, str]:
    """Presses a button that changes something; returns the response."""
    with page.expect_response(lambda answer: answer.url.endswith(path)) as found:
        page.get_by_role("button", name=button, exact=True).click()
    return found.value.status, found.value.text()


def state_of(url: str, id: str, prefix: str = "billing_") -> str:
    return str(query(url, f"SELECT state FROM {prefix}jobs WHERE id = '{id}'")[0][0])


def wait_for_state(url: str, id: str, state: str, prefix: str = "billing_") -> None:
    wait_for(lambda: state_of(url, id, prefix) == state, what=f"a job {state}")


@pytest.fixture(scope="module")
def two_services(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backend whose app serves the dashboards of two services."""
    root = tmp_path_factory.mktemp("dashboards") / "backend"
    copy(
        *(root, "-d", "scope=backend", "-d", "dashboard=in_api"),
        *("-d", f"dashboard_secret={SECRET}"),
        cwd=root.parent,
    )
    (root / "app/billing/workers/send_digest/worker.py").write_text(JOB)
    printed = copy(
        *("app/shipping", "-d", "main=../billing/main.py", "-d", "dashboard=in_api"),
        *("-d", "jobs=[pack_parcel]"),
        cwd=root,
    ).stderr
    lines = re.search(
        r"^    (from app\.shipping\.workers\.dashboard .*)\n\n    (app\.include_.*)\n",
        printed,
        re.M,
    )
    assert lines, printed
    main = root / "app/billing/main.py"
    main.write_text(f"{main.read_text()}\n\n{lines[1]}\n\n{lines[2]}\n{ROUTE}")
    # The code in docs/dashboard.md that replaces who() and hide_arguments().
    page = (TEMPLATE / "docs/dashboard.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    who, hide_arguments = (block for block in blocks if "def " in block)
    file = root / "app/shipping/workers/dashboard.py"
    before, _, rest = file.read_text().partition("async def who()")
    file.write_text(
        before.replace("import Visitor,", "import Role, Visitor,")
        + f"from starlette.requests import HTTPConnection\n\n{who}\n\n{hide_arguments}\n"
        + rest[rest.index("router = ") :]
    )
    return root


def test_an_operator_sees_jobs_retries_them_and_logs_out(
    browser: Browser, two_services: Path, server_url: str, tmp_path: Path
) -> None:
    """An outsider gets nothing, a viewer changes nothing, and services stay separate."""
    (two_services / "mended").unlink(missing_ok=True)
    with database(server_url) as url:
        variables = {"WORKERS_DATABASE_URL": url, **VARIABLES}
        migrate(two_services, "app.billing", url)
        migrate(two_services, "app.shipping", url)
        with service(two_services, "app.billing.main:app", variables) as running:
            wait_until_ready(running)
            failed = running.request("/jobs/send_digest?note=hunter2", "POST")["id"]
            parcel = running.request("/parcels", "POST")["id"]
            wait_for_state(url, failed, "failed")
            wait_for_state(url, parcel, "succeeded", "shipping_")

            outsider = visit(browser, running)
            outsider_gets_nothing(outsider.page, failed)
            outsider.end()

            har = tmp_path / "operator.har"
            operator = visit(browser, running, har)
            operator_pauses_a_queue(operator.page, url)
            operator_retries_a_job(operator.page, url, failed, two_services / "mended")
            wait_for(operator.has_heard, what="an event")
            cookie = operator_logs_out(operator.page)
            operator.end()
            seen = har.read_text() + "".join(operator.events)
            assert "api/v1/jobs/functions" in seen and "send_digest" in seen
            assert "hunter2" not in seen and "pack_parcel" not in seen

            viewer = visit(browser, running)
            viewer_changes_nothing(viewer.page, running.address, url, cookie)
            viewer.end()
            running.stop()

    logged = [line for line in running.output.splitlines() if "dashboard: " in line]
    audit = [line.partition("dashboard: ")[2] for line in logged]
    assert "operator (operator): paused default: done" in audit
    assert "operator (operator): resumed default: done" in audit
    assert f"operator (operator): retried {failed}: done" in audit
    (refused,) = [line for line in audit if line.startswith("vera@")]
    assert refused == (
        "vera@example.com (viewer): POST api/v1/queues/default/pause: refused: "
        "Viewers may not change anything."
    )


def outsider_gets_nothing(page: Page, id: str) -> None:
    for path in ("", "/queues", f"/jobs/{id}"):
        answer = page.goto(f"/dashboard/billing{path}")
        assert answer and answer.status == 401
        expect(page.get_by_label("Password")).to_be_visible()
        assert "send_digest" not in page.content()
    for path in ("/api/v1/jobs", "/assets/", "/nothing"):
        assert page.request.get(f"/dashboard/billing{path}").status == 401
    answer = page.goto("/dashboard/shipping")
    assert answer and answer.status == 401
    log_in(page, "/dashboard/billing", "a wrong password")
    expect(page.get_by_text("The password is wrong.")).to_be_visible()


def operator_pauses_a_queue(page: Page, url: str) -> None:
    log_in(page, "/dashboard/billing/queues/default")
    expect(page.get_by_role("heading", name="Queue - default")).to_be_visible()
    page.get_by_role("button", name="Pause", exact=True).click()
    dialog = page.get_by_role("dialog")
    with page.expect_response(lambda answer: answer.url.endswith("/pause")) as paused:
        dialog.get_by_role("button", name=re.compile("Pause")).click()
    assert paused.value.ok
    assert query(url, "SELECT state FROM billing_queues") == [("paused",)]
    assert press(page, "Resume", "/resume")[0] == 200
    assert query(url, "SELECT state FROM billing_queues") == [("active",)]


def operator_retries_a_job(page: Page, url: str, id: str, mended: Path) -> None:
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_role("link", name=re.compile("send_digest")).click()
    expect(page.get_by_text('"[hidden]"')).to_be_visible()
    # The error's class, without the text that has the argument.
    expect(page.get_by_text("RuntimeError: [hidden]")).to_be_visible()
    mended.touch()
    assert press(page, "Retry Job", f"/{id}/retry")[0] == 200
    wait_for_state(url, id, "succeeded")
    page.goto(f"/dashboard/billing/jobs/{id}")
    expect(page.get_by_text("Succeeded").first).to_be_visible()


def operator_logs_out(page: Page) -> str:
    """Returns the cookie of the ended session."""
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    assert cookie["path"] == "/dashboard/billing"
    page.get_by_role("button", name="Logout").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Password")).to_be_visible()
    return cookie["value"]


def viewer_changes_nothing(
    page: Page, address: str, url: str, of_operator: str
) -> None:
    page.set_extra_http_headers({"x-ms-client-principal-name": "vera@example.com"})
    page.context.add_cookies(
        [{"name": "chancy_dashboard", "value": of_operator, "url": address}]
    )
    answer = page.goto("/dashboard/billing")
    assert answer and answer.status == 401
    page.goto("/dashboard/shipping/jobs")
    page.get_by_role("link", name=re.compile("pack_parcel")).click()
    expect(page.get_by_text('"a red parcel"')).to_be_visible()
    assert "send_digest" not in page.content()
    page.goto("/dashboard/shipping/queues/default")
    page.get_by_role("button", name="Pause", exact=True).click()
    dialog = page.get_by_role("dialog")
    with page.expect_response(lambda answer: answer.url.endswith("/pause")) as paused:
        dialog.get_by_role("button", name=re.compile("Pause")).click()
    assert paused.value.status == 403
    assert query(url, "SELECT state FROM shipping_queues") == [("active",)]


def test_the_workers_own_process_serves_the_dashboard_and_the_api_does_not(
    browser: Browser, server_url: str, tmp_path: Path
) -> None:
    root = tmp_path / "backend"
    answers = ("scope=backend", "run_workers=own_process", "dashboard=own_process")
    data = [f"--data={answer}" for answer in (*answers, f"dashboard_secret={SECRET}")]
    copy(root, *data, cwd=tmp_path)
    run = ("-m", "app.billing.workers", "run", "--port", "0")
    with database(server_url) as url:
        variables = {"WORKERS_DATABASE_URL": url, **VARIABLES}
        migrate(root, "app.billing", url)
        with (
            service(root, "app.billing.main:app", variables) as api,
            service(root, "", variables, run=run) as own,
        ):
            wait_until_ready(api)
            id = api.request("/jobs/send_digest", "POST")["id"]
            wait_for_state(url, id, "succeeded")
            operator = visit(browser, own)
            page = operator.page
            assert page.request.get(f"{api.address}/dashboard/billing").status == 404
            log_in(page, "/dashboard/billing/jobs")
            page.get_by_role("link", name=re.compile("send_digest")).click()
            expect(page.get_by_text("Succeeded").first).to_be_visible()
            # An open page does not delay the stop.
            expect(page.get_by_title("Live updates connected")).to_be_attached()
            api.request("/jobs/send_digest", "POST")
            wait_for(operator.has_heard, what="an event")
            own.stop()
            operator.end()
            api.stop()
    assert "dashboard: operator logged in" in own.output
