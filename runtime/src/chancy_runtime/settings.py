"""The settings of a service's workers, with their safe ranges."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
    "retry_wait": (0, 3600),
    "retry_limit": (0, 86_400),
}
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The timing and the size of a service's workers.

    Args:
        shutdown_grace: Seconds that running jobs get after SIGTERM; keep it 5 s below the
            time that the platform waits before SIGKILL (30 s on Azure Container Apps).
            Range: 1 to 3600.
        heartbeat_timeout: Seconds without a heartbeat after which the jobs of a killed
            process run elsewhere; a heartbeat is sent three times in this time. Range: 10
            to 3600.
        leader_lease: Seconds after which another process takes over from a killed leader; a
            leader renews its lease twice in this time. Range: 10 to 3600.
        poll_interval: Seconds between two polls of Cron, Recovery and Pruner. Range: 1
            to 3600.
        replicas: How many processes run the service. Only the warning about the
            pooler's connections uses it. Range: 1 to 1000.
        pooler_connections: How many connections the pooler has for this role and
            database (Supabase: Database > Settings > Pool Size). Range: 1 to 100,000.
        retry_wait: Seconds that a job which failed for the first time waits for its next
            attempt; they double with each failure. Range: 0 to 3600.
        retry_limit: The longest of these waits, in seconds. Range: 0 to 86,400.
        only_registered: Whether a job whose function is not registered fails; otherwise
            it runs, and a warning names it once. The functions with @job below the
            service's package are registered, and those of `also_registered`.
        also_registered: Paths of other functions that jobs may run
            ("app.common.reports.send"), of packages whose functions with @job they may run
            ("app.common"), and of executors that only rows of queues name.
    """

    shutdown_grace: int = 20
    heartbeat_timeout: int = 90
    leader_lease: int = 120
    poll_interval: int = 60
    replicas: int = 1
    pooler_connections: int = 15
    retry_wait: int = 15
    retry_limit: int = 300
    only_registered: bool = False
    also_registered: Sequence[str] = ()

    def check(self, *, where: str) -> None:
        """Makes sure that each setting has a valid value.

        Args:
            where: The package in which the settings can be corrected.

        Raises:
            WorkersError: A setting is out of its range or has the wrong type.
        """
        for name, span in _RANGES.items():
            check_range(name, getattr(self, name), *span, where=where)
        if type(self.only_registered) is not bool:
            raise WorkersError(
                f"only_registered is {self.only_registered!r}, but must be True or "
                f"False: correct it in {where}"
            )
        paths = self.also_registered
        if not isinstance(paths, list | tuple) or not all(map(_is_path, paths)):
            raise WorkersError(
                f"also_registered is {paths!r}, but must be a list of import paths such "
                f'as ["app.common.reports.send"]: correct it in {where}'
            )


def _is_path(value: object) -> bool:
    return isinstance(value, str) and _PATH.fullmatch(value) is not None


def check_range(
    name: str, value: Any, lowest: int, highest: int, *, where: str
) -> None:
    """Makes sure that a setting is a whole number in its range.

    Args:
        where: The package in which the setting can be corrected.

    Raises:
        WorkersError: The value is not a whole number in the range.
    """
    if type(value) is not int or not lowest <= value <= highest:
        raise WorkersError(
            f"{name} is {value!r}, but must be a whole number from {lowest} to "
            f"{highest}: correct it in {where}"
        )
