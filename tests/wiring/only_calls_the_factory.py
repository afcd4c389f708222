"""FastAPI main entrypoint. Exposes the app instance for uvicorn."""

from .factory import create_app

app = create_app()
