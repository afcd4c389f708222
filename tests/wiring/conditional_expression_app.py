import os

from fastapi import FastAPI

DEBUG = os.environ.get("DEBUG") == "1"

app = FastAPI(debug=True) if DEBUG else FastAPI(docs_url=None)


@app.get("/")
def index():
    return {"debug": DEBUG}
