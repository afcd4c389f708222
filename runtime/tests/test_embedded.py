"""The embedded PostgreSQL runs where people run tests: several at once, in any folder."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from chancy_runtime.embedded import EmbeddedServer
from psycopg.conninfo import conninfo_to_dict

from harness.databases import query


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a difficult name, for a user with settings for another server."""
    monkeypatch.setenv("PGPORT", "9")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("HOME", "/nowhere")
    with tempfile.TemporaryDirectory(prefix="it's a $HOME ") as name:
        yield Path(name)


def test_several_run_at_once_each_in_its_folder_and_leave_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = ("one", "two ")
    servers = []
    with monkeypatch.context() as person:
        person.setenv("PGDATESTYLE", "theirs")  # No server starts with it.
        for name in folders:
            (folder / name).mkdir()
            servers.append(EmbeddedServer(folder / name))

    for name, server in zip(folders, servers, strict=True):
        data = str(folder / name / "data")
        assert query(server.url, "SHOW data_directory") == [(data,)]
    servers[0].stop()
    assert query(servers[1].url, "SELECT 1") == [(1,)]
    servers[1].stop()

    for server in servers:
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url)
    assert [*folder.rglob(".s.PGSQL*")] == []


@pytest.mark.parametrize("name", ["x" * 100, "a, b"])
def test_the_socket_is_elsewhere_if_the_path_cannot_have_it(
    name: str, folder: Path
) -> None:
    deep = folder / name
    deep.mkdir()

    server = EmbeddedServer(deep)
    sockets = Path(str(conninfo_to_dict(server.url)["host"]))

    assert query(server.url, "SELECT 1") == [(1,)]
    assert deep not in (sockets, *sockets.parents)
    server.stop()
    assert not sockets.exists()


def test_a_server_that_does_not_start_says_why(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "theirs").touch()

    with pytest.raises(RuntimeError, match="initdb failed: .*exists but is not empty"):
        EmbeddedServer(folder)
