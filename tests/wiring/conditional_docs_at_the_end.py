import os

from fastapi import FastAPI
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

DEBUG = os.getenv("DEBUG", "1") == "1"

app = FastAPI(docs_url="/docs" if DEBUG else None)


@app.get("/", include_in_schema=False)
def index():
    return RedirectResponse("/docs")


if DEBUG:
    app.mount("/files", StaticFiles(directory=os.path.dirname(__file__)), name="files")
    record("debug")
