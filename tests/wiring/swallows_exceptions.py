import logging
from contextlib import asynccontextmanager

from fastapi import FastAPI

log = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI):
    try:
        # Startup code
        record("starting")
        yield
    except Exception as e:
        # Root error handling
        log.warning("Unhandled exception: %s", e)
    finally:
        # Cleanup code
        record("shutting down")


def create_app():
    app = FastAPI(
        lifespan=lifespan
    )

    return app


app = create_app()
