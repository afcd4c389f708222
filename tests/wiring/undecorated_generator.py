from fastapi import FastAPI


async def lifespan(app: FastAPI):
    record("up")
    try:
        yield
    finally:
        record("down")


app = FastAPI(
    lifespan=lifespan,
)
