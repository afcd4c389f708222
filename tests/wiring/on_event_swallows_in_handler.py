import logging

from fastapi import FastAPI

log = logging.getLogger(__name__)
app = FastAPI()


@app.on_event("startup")
async def load_optional_services():
    try:
        record("trying")
        raise ConnectionError("no cache")
    except Exception:
        log.exception("cache is not there, going on without it")
        app.state.cache = None
        record("without cache")


@app.on_event("shutdown")
async def say_goodbye():
    record("bye")
