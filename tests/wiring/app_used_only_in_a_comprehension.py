from fastapi import APIRouter, FastAPI

app = FastAPI()
routers = {name: APIRouter(prefix=f"/{name}") for name in ("a", "b")}
_ = [app.include_router(each) for each in routers.values()]

paths = sorted({route.path for route in app.routes if hasattr(route, "path")})
