from collections.abc import (
    AsyncIterator,
)
from contextlib import asynccontextmanager

from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    Request,
    Response,
)

from .core.database import (
    close_pool,
    open_pool,
    session,
)

router = APIRouter(dependencies=[Depends(session)])


@router.get('/')
async def index(request: Request, response: Response) -> dict[str, str]:
    response.headers['X-Path'] = request.url.path
    return {}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    await open_pool()
    try:
        yield
    finally:
        await close_pool()


app = FastAPI(
    title='billing',
    lifespan=lifespan,
)
app.include_router(router)
