from fastapi import FastAPI

from .errors import register_error_handlers
from .telemetry import instrument

app = FastAPI(title="billing")


def register(application: FastAPI) -> None:
    @application.get("/live")
    async def live() -> dict[str, bool]:
        return {"live": True}


register(app)
register_error_handlers(app)
instrument(app)
