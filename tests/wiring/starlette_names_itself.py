from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse

app = Starlette(middleware=[Middleware(GZipMiddleware)])
app.add_route("/", lambda request: PlainTextResponse("billing"))
