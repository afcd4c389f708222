from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware

from .routes import router


def create_app(debug: bool = False) -> FastAPI:
    """Creates the application."""
    app = FastAPI(title="Billing", debug=debug)
    app.add_middleware(GZipMiddleware, minimum_size=1000)
    app.include_router(router)

    @app.get("/version")
    def version() -> dict[str, str]:
        return {"version": "1.0"}

    return app
