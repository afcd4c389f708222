import uvicorn
from fastapi import FastAPI

from .lifespan import app_lifespan


def create_app() -> FastAPI:
    """
    Creates and configures an instance of the FastAPI application.

    Returns:
        FastAPI: the application.
    """
    app = FastAPI(lifespan=app_lifespan)
    return app


app = create_app()

if __name__ == "__main__":
    uvicorn.run("app.billing.main:app", host="0.0.0.0", port=8000, reload=True)
