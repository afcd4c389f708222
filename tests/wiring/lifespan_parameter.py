from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("the module's")
    yield
    record("the module's, down")


@asynccontextmanager
async def quiet(app: FastAPI):
    record("quiet")
    yield


def create_app(lifespan=lifespan) -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    def index():
        return {}

    return app


def build() -> FastAPI:
    return create_app(quiet)
