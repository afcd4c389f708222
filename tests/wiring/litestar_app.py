from litestar import Litestar, get


@get("/")
async def index() -> dict[str, str]:
    return {"service": "billing"}


app = Litestar(route_handlers=[index])
