"""What a service may set for its workers, with the ranges that are safe."""

from dataclasses import dataclass, fields
from typing import Any

from chancy_runtime.errors import WorkersError

# lowest and highest value of each setting
_RANGES = {
    "shutdown_grace": (1, 3600),
    "heartbeat_timeout": (10, 3600),
    "leader_lease": (10, 3600),
    "poll_interval": (1, 3600),
    "replicas": (1, 1000),
    "pooler_connections": (1, 100_000),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The timing and the size of a service's workers.

    Args:
        shutdown_grace: Seconds that running jobs get after SIGTERM; keep it 5 s below
            what the platform waits before SIGKILL (30 s on Azure Container Apps).
            Range: 1 to 3600.
        heartbeat_timeout: Seconds without a heartbeat after which the jobs of a killed
            process run elsewhere; a heartbeat goes out three times in it. Range: 10 to
            3600.
        leader_lease: Seconds after which another process takes over from a killed
            leader; it is renewed twice in it. Range: 10 to 3600.
        poll_interval: Seconds between two polls of Cron, Recovery and Pruner. Range: 1
            to 3600.
        replicas: How many processes run the service. Only the warning about the
            pooler's connections uses it. Range: 1 to 1000.
        pooler_connections: How many connections the pooler has for this role and
            database (Supabase: Database > Settings > Pool Size). Range: 1 to 100,000.
    """

    shutdown_grace: int = 20
    heartbeat_timeout: int = 90
    leader_lease: int = 120
    poll_interval: int = 60
    replicas: int = 1
    pooler_connections: int = 15

    def check(self, *, where: str) -> None:
        """Makes sure that each setting is in its range.

        Args:
            where: The package in which the settings can be corrected.

        Raises:
            WorkersError: One is not.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            check_range(field.name, value, *_RANGES[field.name], where=where)


def check_range(
    name: str, value: Any, lowest: int, highest: int, *, where: str
) -> None:
    """Makes sure that a setting is a whole number in its range.

    Args:
        where: The package in which it can be corrected.

    Raises:
        WorkersError: It is not.
    """
    if type(value) is not int or not lowest <= value <= highest:
        raise WorkersError(
            f"{name} is {value!r}, and takes a whole number from {lowest} to {highest}: "
            f"correct it in {where}"
        )
