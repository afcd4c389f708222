from collections.abc import Awaitable, Callable

from fastapi import FastAPI


def create_start_handler(app: FastAPI) -> Callable[[], Awaitable[None]]:
    async def start() -> None:
        record("start")
        app.state.pool = object()

    return start


def create_stop_handler(app: FastAPI) -> Callable[[], Awaitable[None]]:
    async def stop() -> None:
        record("stop")
        app.state.pool = None

    return stop


def get_application() -> FastAPI:
    application = FastAPI(title="Billing")
    application.router.add_event_handler("startup", create_start_handler(application))
    application.router.add_event_handler("shutdown", create_stop_handler(application))
    return application


app = get_application()
