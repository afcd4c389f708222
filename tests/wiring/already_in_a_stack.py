from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from app.billing.workers.chancy_initialization import initialize_workers as chancy


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(chancy())
        yield


app = FastAPI(lifespan=lifespan)
