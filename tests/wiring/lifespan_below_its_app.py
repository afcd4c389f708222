from contextlib import asynccontextmanager

from fastapi import FastAPI


def build() -> FastAPI:
    app = FastAPI(title="Billing", lifespan=lifespan)

    @app.get("/")
    def index() -> dict[str, str]:
        return {"title": app.title}

    return app


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    yield
    record("down")


app = build()
