from fastapi import FastAPI

from .container import container

app = FastAPI(lifespan=container.lifespan)


@app.get("/")
async def index():
    return {"container": type(container).__name__}
