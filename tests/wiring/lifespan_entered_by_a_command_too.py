import asyncio
import sys
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("pool open")
    yield
    record("pool closed")


app = FastAPI(lifespan=lifespan)


async def export() -> None:
    async with lifespan(app):
        print("exported")


if __name__ == "__main__" and "export" in sys.argv:
    asyncio.run(export())
