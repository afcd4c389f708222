from contextlib import \
    asynccontextmanager
from fastapi import \
    FastAPI


@asynccontextmanager
async def resource(name):
    record(f"{name} up")
    yield
    record(f"{name} down")


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with resource("a"), \
               resource("b"):
        yield \
            {"a": 1,
             "b": 2}


app = \
    FastAPI(lifespan=lifespan)
