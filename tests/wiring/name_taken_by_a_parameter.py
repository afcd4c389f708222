from fastapi import APIRouter, FastAPI


def create_app(workers_router: APIRouter | None = None) -> FastAPI:
    app = FastAPI()
    app.include_router(workers_router or APIRouter())
    return app
