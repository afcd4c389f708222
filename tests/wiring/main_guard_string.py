import os

import uvicorn
from fastapi import FastAPI

from app.billing.prices import PRICES

app = FastAPI()


@app.get("/prices")
def prices():
    return PRICES


if __name__ == "__main__":
    port = int(os.environ.get("PORT", 8080))
    uvicorn.run(
        "app.billing.main:app",
        host="127.0.0.1",
        port=port,
        log_level="info",
    )
