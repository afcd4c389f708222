from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI, *, region: str):
    record(f"up in {region}")
    yield {"region": region}
    record(f"down in {region}")


app = FastAPI(lifespan=partial(lifespan, region="eu"))
