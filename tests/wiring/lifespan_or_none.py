from fastapi import FastAPI

app = FastAPI(title="Billing", lifespan=None)


@app.on_event("startup")
async def startup():
    record("startup")


@app.get("/")
async def index():
    return {}
