import logging

from fastapi import FastAPI

log = logging.getLogger(__name__)


def create_app() -> FastAPI:
    app = FastAPI()
    try:
        from .private_routes import router

        app.include_router(router)
    except ImportError:
        log.warning("the private routes are not there")
    finally:
        record("configured")
    return app
