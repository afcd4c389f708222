import os

from fastapi import FastAPI

ENVIRONMENT = os.environ.get("ENVIRONMENT", "development")

if ENVIRONMENT == "production":
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
else:
    app = FastAPI(title="Billing (development)")


@app.get("/environment")
def environment():
    return {"environment": ENVIRONMENT}
