"""Takes the pictures of docs/dashboard.md: uv run python -m tests.screenshots.

A rendered backend runs jobs, one of which fails, and Chromium opens its dashboard.
"""

import tempfile
from pathlib import Path
from urllib.parse import urljoin

from playwright.sync_api import Page

from harness.probes import wait_until_ready
from harness.servers import embedded_server

from .browsers import TIMEOUT, chromium
from .support import TEMPLATE, copy, database, migrate, query, service, wait_for

PICTURES = TEMPLATE / "docs" / "images"
PASSWORD = "correct horse battery"
ANSWERS = (
    "scope=backend",
    "dashboard=in_api",
    "dashboard_secret=DASHBOARD-PASSWORD",
    "metrics=true",
    'jobs=[send_digest, make_invoice, {name: clean_up, schedule: "@hourly"}]',
)
ROUTE = """
from app.billing.workers.make_invoice.worker import make_invoice


@app.post("/invoices")
async def push_invoice(order: int) -> None:
    await get_chancy().push(make_invoice.job.with_kwargs(note=f"order {order}"))
"""
FAILS = """
    if note.endswith("7"):
        raise ValueError(f"no address for {note}")
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, embedded_server() as server:
        root = Path(folder) / "backend"
        copy(root, *(f"--data={answer}" for answer in ANSWERS), cwd=root.parent)
        app = root / "app/billing/main.py"
        app.write_text(app.read_text() + ROUTE)
        job = root / "app/billing/workers/make_invoice/worker.py"
        job.write_text(job.read_text() + FAILS)
        with database(server) as url:
            migrate(root, "app.billing", url)
            variables = {"WORKERS_DATABASE_URL": url, "DASHBOARD_PASSWORD": PASSWORD}
            with service(root, "app.billing.main:app", variables) as running:
                wait_until_ready(running)
                for order in (1004, 1005, 1006):
                    running.request(f"/invoices?order={order}", "POST")
                running.run_job("send_digest")
                for order in (1007, 1008):
                    running.request(f"/invoices?order={order}", "POST")
                wait_for(
                    lambda: (
                        query(
                            url,
                            "SELECT count(*) FROM billing_jobs WHERE completed_at IS NULL",
                        )
                        == [(0,)]
                    ),
                    what="the end of the jobs",
                )
                take(f"{running.address}/dashboard/billing")


def take(dashboard: str) -> None:
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1240, "height": 640})
        context.set_default_timeout(TIMEOUT)
        context.add_init_script("localStorage.setItem('chancy-theme', 'light')")
        page = context.new_page()
        page.goto(f"{dashboard}/jobs")
        page.get_by_label("Password").wait_for()
        save(page, "dashboard-login", height=360)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        failed = page.get_by_role("row").filter(has_text="Failed").get_by_role("link")
        failed.first.wait_for()
        page.get_by_text("Loading metrics").wait_for(state="hidden")
        save(page, "dashboard-jobs")
        page.goto(urljoin(dashboard, failed.first.get_attribute("href")))
        page.set_viewport_size({"width": 1240, "height": 1200})
        page.get_by_text("Errors", exact=True).wait_for()
        # Below is a traceback with paths of this machine, which is cut off.
        errors = page.get_by_text("Errors", exact=True).bounding_box()
        assert errors
        save(page, "dashboard-job", height=errors["y"])
        page.goto(f"{dashboard}/queues/default")
        page.get_by_role("button", name="Pause").wait_for()
        save(page, "dashboard-queue", height=360)


def save(page: Page, name: str, height: float = 640) -> None:
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(
        path=PICTURES / f"{name}.png",
        clip={"x": 0, "y": 0, "width": 1240, "height": height},
    )


if __name__ == "__main__":
    main()
