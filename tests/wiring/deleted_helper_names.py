from fastapi import APIRouter, FastAPI

app = FastAPI()
_router = APIRouter()


@_router.get("/")
def _index():
    return {}


app.include_router(_router)

del _router, _index
