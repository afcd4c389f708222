from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    """Compact."""
    app.state.ready = False
    record("up"); yield; record("down")


app = FastAPI(lifespan=lifespan)
