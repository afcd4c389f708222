from fastapi import FastAPI

from .shipping.workers.chancy_router import workers_router

app = FastAPI(title="backend")


@app.get("/")
async def root() -> dict[str, str]:
    return {"backend": "up"}


app.include_router(workers_router)
