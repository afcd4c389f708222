"""The clock of the server, which all processes of a service share."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import AsyncConnection


class ServerClock:
    """The server's clock, read with each heartbeat and counted on from there."""

    def __init__(self) -> None:
        self._time = datetime.now(tz=UTC)
        self._since = time.monotonic()

    def now(self) -> datetime:
        """Returns the server's time; before the first reading, that of this host.

        It is ahead of the server's clock by the duration of the query at most, never behind.
        """
        return self._time + timedelta(seconds=time.monotonic() - self._since)

    async def read(self, connection: AsyncConnection[Any]) -> None:
        """Reads the clock: NOW() would be the start of a transaction that may have waited."""
        since = time.monotonic()
        cursor = await connection.execute("SELECT clock_timestamp()")
        row = await cursor.fetchone()
        assert row
        self._time, self._since = row[0].astimezone(UTC), since
