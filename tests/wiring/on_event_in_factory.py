from fastapi import FastAPI
from fastapi.responses import JSONResponse


def create_app() -> FastAPI:
    app = FastAPI(title="billing")
    state = {"requests": 0}

    @app.on_event("startup")
    async def on_startup() -> None:
        state["started"] = True
        record("factory startup")

    @app.on_event("shutdown")
    async def on_shutdown() -> None:
        record("factory shutdown")

    @app.get("/state")
    async def show_state() -> JSONResponse:
        state["requests"] += 1
        return JSONResponse(state)

    return app
