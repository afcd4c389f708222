from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI


class State(TypedDict):
    clients: dict[str, str]
    banner: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    clients = {"stripe": "https://api.stripe.example"}
    record("clients")
    try:
        yield State(
            clients=clients,  # by name
            banner="""Billing
    keeps these spaces
\tand this tab
""",
        )
    finally:
        clients.clear()
        record("no clients")


app = FastAPI(lifespan=lifespan, title="Billing")
