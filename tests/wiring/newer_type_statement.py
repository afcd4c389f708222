from contextlib import asynccontextmanager

from fastapi import FastAPI

type Json = dict[str, Json] | list[Json] | str | int | None


def first[T](items: list[T]) -> T:
    return items[0]


@asynccontextmanager
async def lifespan(app: FastAPI):
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
def index() -> Json:
    return first([{"a": 1}])
