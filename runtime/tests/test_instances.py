"""Several apps of one process, as tests have them: get_chancy() returns one that runs."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
from chancy_runtime import Chancy, Worker, job
from chancy_runtime.modes import VARIABLE
from fastapi import FastAPI
from fastapi.testclient import TestClient

from harness.databases import query

FILE = Path(__file__).parent / "harness/example/app/billing/workers/chancy_instance.py"
STEPS = ("set", "open", "close")


@pytest.fixture
def instance() -> ModuleType:
    """The module of a service, as it is rendered."""
    spec = importlib.util.spec_from_file_location("chancy_instance", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@job()
async def greet() -> None: ...


Order = list[tuple[str, str]]


def orders(apps: str, before: Order) -> Iterator[Order]:
    """Every order in which the starts and stops of apps can fall, after some steps."""
    if len(before) == len(apps) * len(STEPS):
        yield before
    for app in apps:
        done = [each for each, _ in before].count(app)
        for step in STEPS[done : done + 1]:
            yield from orders(apps, [*before, (app, step)])


@pytest.mark.parametrize("apps", ["ab", "abc"])
def test_the_last_app_that_runs_counts_in_whichever_order_they_start_and_stop(
    apps: str, instance: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "off")

    async def run(order: Order) -> None:
        url = "postgresql://nobody@127.0.0.1:1/nowhere"
        all = {app: Chancy(url, prefix=f"{app}_", plugins=[]) for app in apps}
        were_set: list[str] = []
        running: set[str] = set()
        for app, step in order:
            if step == "set":
                instance.set_chancy(all[app])
                were_set.append(app)
            elif step == "open":
                await all[app].__aenter__()
                running.add(app)
            else:
                await all[app].__aexit__(None, None, None)
                running.remove(app)
            if running:
                last = [each for each in were_set if each in running][-1]
                assert instance.get_chancy() is all[last], order
            else:
                with pytest.raises(RuntimeError, match="Chancy is not running"):
                    instance.get_chancy()

    async def all_of_them() -> None:
        for order in orders(apps, []):
            await run(order)

    asyncio.run(all_of_them())


def test_after_the_inner_one_of_two_test_clients_the_outer_one_still_pushes(
    instance: ModuleType, migrated_url: str
) -> None:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        chancy = Chancy(
            migrated_url, prefix="billing_", plugins=[], no_default_plugins=True
        )
        instance.set_chancy(chancy)
        async with chancy, Worker(chancy, register_signal_handlers=False):
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/greetings")
    async def push() -> None:
        await instance.get_chancy().push(greet)

    with TestClient(app) as outer:
        for _ in range(2):
            with TestClient(app) as inner:
                assert inner.post("/greetings").status_code == 200
            assert outer.post("/greetings").status_code == 200
    assert len(query(migrated_url, "SELECT 1 FROM billing_jobs")) == 4
