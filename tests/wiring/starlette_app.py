from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


@asynccontextmanager
async def lifespan(app):
    print("up")
    yield
    print("down")


async def homepage(request):
    return JSONResponse({"hello": "billing"})


app = Starlette(debug=True, routes=[Route("/", homepage)], lifespan=lifespan)
