from fastapi import FastAPI

app = FastAPI(title="billing")


@app.get("/")
async def root() -> dict[str, str]:
    return {"billing": "up"}


app.include_router(workers_router)
