from fastapi import FastAPI


class Service:
    """One service of the backend."""

    app = FastAPI(title="billing")

    @app.get("/")
    def index() -> dict[str, str]:
        return {"service": "billing"}

    @app.on_event("startup")
    def startup() -> None:
        record("startup")
