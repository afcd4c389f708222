import logging
from collections.abc import Callable

class DatabaseRetry:
    errors: tuple[type[Exception], ...]
    name: str
    calculate_delay: Callable[[int], float]
    max_retries: int | None
    log: logging.Logger
    failures: int
    def __init__(
        self,
        name: str,
        *,
        calculate_delay: Callable[[int], float],
        max_retries: int | None,
        log: logging.Logger,
    ) -> None: ...
    def reset(self) -> None: ...
    async def wait(self, error: BaseException) -> None: ...
