from typing import NamedTuple

from fastapi import FastAPI


class Built(NamedTuple):
    app: FastAPI
    debug: bool


def create(debug: bool = False) -> Built:
    app = FastAPI(debug=debug)

    @app.on_event("startup")
    def startup() -> None:
        record("startup")

    return Built(app, debug)


def app_of() -> FastAPI:
    return create().app
