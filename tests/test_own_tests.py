"""The tests that a service had before its workers still pass without a database."""

import re
from pathlib import Path

import pytest
from chancy_workers.answers import Project
from chancy_workers.own_tests import that_start_workers

from .legacy import backend_with
from .support import PROGRAM, PYTEST, TEMPLATE, commit, copy, run

# A shop on SQLite: settings, a lifespan with a database, routes, tests.
SETTINGS = '''\
"""The settings of the shop, from the environment."""

import os

DATABASE_URL = os.environ.get("DATABASE_URL", "sqlite:///shop.db")


def path() -> str:
    scheme, _, path = DATABASE_URL.partition(":///")
    assert scheme == "sqlite", f"{scheme} is not supported yet"
    return path
'''
MAIN = '''\
"""The shop."""

import sqlite3
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, HTTPException, Request

from app.shop import settings


@asynccontextmanager
async def lifespan(app: FastAPI):
    connection = sqlite3.connect(settings.path(), check_same_thread=False)
    connection.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item)")
    try:
        yield {"database": connection}
    finally:
        connection.close()


app = FastAPI(lifespan=lifespan)


def database(request: Request) -> sqlite3.Connection:
    return request.state.database


@app.post("/orders", status_code=201)
async def order(item: str, database=Depends(database)) -> int:
    with database:
        cursor = database.execute("INSERT INTO orders (item) VALUES (?)", [item])
    return cursor.lastrowid


@app.get("/orders/{id}")
def show(id: int, database=Depends(database)) -> str:
    for (item,) in database.execute("SELECT item FROM orders WHERE id = ?", [id]):
        return item
    raise HTTPException(404)
'''
CONFTEST = """\
import os

import pytest
from fastapi.testclient import TestClient

os.environ["DATABASE_URL"] = "sqlite:///:memory:"


@pytest.fixture(scope="module")
def client():
    from app.shop.main import app

    with TestClient(app) as client:
        yield client
"""
TEST_ORDERS = """\
def test_an_order_is_kept(client):
    id = client.post("/orders", params={"item": "tea"}).json()

    assert client.get(f"/orders/{id}").json() == "tea"


def test_there_is_no_other_order(client):
    assert client.get("/orders/99").status_code == 404
"""
TEST_LIFESPAN = """\
import httpx
import pytest

from app.shop import main


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_database_is_open_while_the_shop_is():
    async with main.app.router.lifespan_context(main.app) as state:
        assert state["database"].execute("SELECT 1").fetchone() == (1,)
"""
SHOP = {
    "app/shop/__init__.py": "",
    "app/shop/main.py": MAIN,
    "app/shop/settings.py": SETTINGS,
    "tests/conftest.py": CONFTEST,
    "tests/test_orders.py": TEST_ORDERS,
    "tests/test_lifespan.py": TEST_LIFESPAN,
}
# The secret's name is the variable of the shop's own URL.
ANSWER = "database_secret=DATABASE-URL"
SWITCH = 'os.environ["WORKERS_MODE"] = "off"\n'
SETTINGS_IMPORT = "from app.shop import settings\n"
OF_WORKERS = """\
from app.shop.workers.chancy_instance import get_chancy
from app.shop.workers.send_digest.worker import send_digest
"""
PUSH = """\
    await get_chancy().push(send_digest.job.with_kwargs(note=item))
    return cursor.lastrowid
"""
TEST_PUSHED = """\
from app.shop.workers.send_digest.worker import send_digest


def test_an_order_sends_a_digest(client, pushed):
    client.post("/orders", params={"item": "tea"})

    assert pushed == [send_digest.job.with_kwargs(note="tea")]


def test_a_search_sends_none(client, pushed):
    client.get("/orders/99")

    assert pushed == []
"""


def run_tests(root: Path) -> list[str]:
    """The output of the shop's own tests; the last line counts them."""
    return run(*PYTEST, "tests", cwd=root, check=False).stdout.splitlines()


def check(root: Path) -> list[str]:
    return run(PROGRAM, "check", cwd=root, check=False).stdout.splitlines()


def test_the_service_s_own_tests_pass_before_and_after_its_workers(
    tmp_path: Path,
) -> None:
    root = backend_with(tmp_path / "backend", SHOP)
    before = run_tests(root)
    message = copy("app/shop", "-d", ANSWER, cwd=root).stderr
    commit(root)

    after = run_tests(root)
    found = [line for line in check(root) if "lifespan" in line]
    conftest = root / "tests/conftest.py"
    conftest.write_text(CONFTEST.replace("\n\n\n", f"\n{SWITCH}\n\n", 1))

    assert before[-1].startswith("3 passed")
    assert "passed" not in after[-1]
    assert any("set WORKERS_MODE to off" in line for line in after)
    assert SWITCH in message
    (finding,) = found
    assert finding.startswith(
        "tests/conftest.py:13: notice: enters the lifespan of the app (also in "
        "tests/test_lifespan.py), which starts the workers and needs their database: "
    )
    assert f"{SWITCH.strip()} in tests/conftest.py" in finding
    assert run_tests(root)[-1].startswith("3 passed")
    assert not [line for line in check(root) if "lifespan" in line]


def test_a_test_sees_the_jobs_that_the_service_pushed(tmp_path: Path) -> None:
    """With the autouse fixture of docs/testing.md, tests that do not use it pass, too."""
    (autouse,) = re.findall(
        r"```python\n(import pytest\n.*?autouse=True.*?)```",
        (TEMPLATE / "docs/testing.md").read_text(),
        re.DOTALL,
    )
    main = MAIN.replace(SETTINGS_IMPORT, SETTINGS_IMPORT + OF_WORKERS)
    files = {
        "conftest.py": f"import os\n\n{autouse}\n\n{SWITCH}",
        "app/shop/main.py": main.replace("    return cursor.lastrowid\n", PUSH),
        "tests/test_pushed.py": TEST_PUSHED,
    }
    root = backend_with(tmp_path / "backend", {**SHOP, **files})
    copy("app/shop", "-d", ANSWER, cwd=root)

    assert run_tests(root)[-1].startswith("5 passed")


ENTERS = [
    "with TestClient(app) as client:\n    pass\n",
    "with testclient.TestClient(main.app):\n    pass\n",
    "client = TestClient(app)\nwith client:\n    pass\n",
    "stack.enter_context(TestClient(app))\n",
    "async def test():\n    async with LifespanManager(app):\n        pass\n",
    "async def test():\n    async with app.router.lifespan_context(app):\n        pass\n",
    "async def test():\n    async with main.lifespan(app):\n        pass\n",
]
STAYS_OUT = [
    "client = TestClient(app)\nclient.get('/')\n",
    "with open('lifespan.txt') as file:\n    pass\n",
    "with TestClient(app)\n",
]
IMPORT = "from app.shop.main import app\n"


def starters(root: Path) -> list[str]:
    answers = {"scope": "service", "service": "shop"}
    project = Project(root / "app/shop/.copier-answers.yml", answers)
    return [
        path.relative_to(root).as_posix() for path, _ in that_start_workers(project)
    ]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        *(({"tests/test_a.py": IMPORT + text}, True) for text in ENTERS),
        *(({"tests/test_a.py": IMPORT + text}, False) for text in STAYS_OUT),
        ({"app/shop/test_a.py": f"from . import main\n{ENTERS[0]}"}, True),
        ({"tests/api/test_a.py": ENTERS[0], "tests/conftest.py": IMPORT}, True),
        ({"tests/api/test_a.py": ENTERS[0], "tests/web/conftest.py": IMPORT}, False),
        ({"app/mail/tests/test_a.py": f"from ..main import app\n{ENTERS[0]}"}, False),
        ({"app/shop/tests/test_a.py": f"from ..main import app\n{ENTERS[0]}"}, True),
        ({"tests/test_a.py": f"from main import app\n{ENTERS[0]}"}, True),
        ({"tests/test_a.py": f"from app.mail.main import app\n{ENTERS[0]}"}, False),
        ({"app/shop/smoke.py": IMPORT + ENTERS[0]}, False),
        ({"app/shop/workers/tests/test_a.py": IMPORT + ENTERS[0]}, False),
    ],
)
def test_tests_that_start_workers_are_found(
    files: dict[str, str], found: bool, tmp_path: Path
) -> None:
    backend_with(tmp_path, {"app/shop/main.py": MAIN, **files})
    commit(tmp_path)

    assert starters(tmp_path) == ([*files][:1] if found else [])


@pytest.mark.parametrize(
    ("name", "text", "is_off"),
    [
        ("tests/conftest.py", SWITCH, True),
        ("tests/test_b.py", 'monkeypatch.setenv("WORKERS_MODE", "off")', True),
        (".github/workflows/ci.yml", "env:\n  WORKERS_MODE: off\n", True),
        ("Makefile", "test:\n\tWORKERS_MODE=off pytest\n", True),
        ("compose.yml", "WORKERS_MODE: push\n", False),
        ("README.md", "Set WORKERS_MODE=off for the tests.\n", False),
        ("app/shop/workers/notes.py", "# WORKERS_MODE=off\n", False),
    ],
)
def test_no_test_is_reported_if_a_file_switches_the_workers_off(
    name: str, text: str, is_off: bool, tmp_path: Path
) -> None:
    tests = {"app/shop/main.py": MAIN, "tests/test_a.py": IMPORT + ENTERS[0]}
    backend_with(tmp_path, {**tests, name: text})
    commit(tmp_path)

    assert bool(starters(tmp_path)) is not is_off
