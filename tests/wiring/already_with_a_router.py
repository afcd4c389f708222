from fastapi import FastAPI


def create_app() -> FastAPI:
    from .workers.chancy_router import workers_router as background

    app = FastAPI()
    for router in (background,):
        app.include_router(router)
    return app


app = create_app()
