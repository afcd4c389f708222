"""Stops the workers as soon as SIGTERM arrives, before the server ends the lifespan."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def on_sigterm(act: Callable[[], object]) -> Iterator[None]:
    """Calls `act` in the running loop at SIGTERM, besides the server's own handler.

    uvicorn waits for the open requests before it leaves the lifespan. Until then the workers
    would go on taking jobs, and their grace would not have begun. If SIGTERM has no handler,
    or in a thread other than the main thread, this does nothing.
    """
    server = signal.getsignal(signal.SIGTERM)
    if (
        threading.current_thread() is not threading.main_thread()
        or server is None
        or isinstance(server, int)
    ):
        yield
        return
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(act)
        server(number, frame)

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is handle:
            signal.signal(signal.SIGTERM, server)
