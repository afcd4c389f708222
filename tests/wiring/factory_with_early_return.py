import os

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles


def create_app() -> FastAPI:
    app = FastAPI()

    @app.on_event("startup")
    async def startup() -> None:
        record("startup")

    if not os.path.isdir("frontend"):
        return app

    app.mount("/", StaticFiles(directory="frontend"))
    return app
