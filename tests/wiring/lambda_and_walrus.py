import os

from fastapi import FastAPI

if (app := FastAPI(title=os.environ.get("TITLE", "billing"))).title:
    app.state.titled = True


@app.get("/")
def index():
    return {"titled": app.state.titled}
