from fastapi import FastAPI

from .demo import mount_demo

app = FastAPI()


@app.on_event("startup")
async def startup():
    record("startup")


app = mount_demo(app, path="/demo")


@app.get("/")
def index():
    return {"demo": "/demo"}
