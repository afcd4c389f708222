"""Tells the workers of SIGTERM when it comes, not when the server comes to them."""

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

    uvicorn waits for the open requests before it leaves the lifespan: until then the
    workers would go on taking jobs, and their grace would not have begun. Where nobody
    handles SIGTERM, or in a thread, this does nothing.
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
