from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

v1 = APIRouter(prefix="/v1")


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("create tables")

    yield

    record("drop tables")


def create_application():
    return FastAPI(
        title="Books",
        responses={404: {"description": "Not Found!"}},
        lifespan=lifespan,
    )


app = create_application()


def _configure():
    app.include_router(v1)


_configure()
