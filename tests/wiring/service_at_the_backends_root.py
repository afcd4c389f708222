from fastapi import FastAPI

from .billing.api import router as billing_router

app = FastAPI(title="Backend")
app.include_router(billing_router, prefix="/billing")


@app.get("/")
def root() -> dict[str, str]:
    return {"backend": "up"}
