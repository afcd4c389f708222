from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware


def create_app():
    app = FastAPI(title="Billing")

    @app.get("/")
    async def index():
        return {}

    return CORSMiddleware(app, allow_origins=["*"])
