# Patches first: they change what is imported below.
from . import patches  # noqa: F401

# isort: split

# stdlib
from contextlib import asynccontextmanager

# third party
from fastapi import FastAPI  # the framework

# ours
from .settings import TITLE  # noqa: E402

# ------------------------------------------------------------ lifespan


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    yield
    record("down")


app = FastAPI(title=TITLE, lifespan=lifespan)
