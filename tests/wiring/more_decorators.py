import functools
from contextlib import asynccontextmanager as acm

from fastapi import FastAPI


def announced(function):
    @functools.wraps(function)
    def wrapper(app):
        record("announced")
        return function(app)

    return wrapper


@announced
@acm
async def lifecycle(application: FastAPI):
    record("up")
    yield
    record("down")


app = FastAPI(title="Billing", lifespan=lifecycle)
