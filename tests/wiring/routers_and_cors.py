"""Billing API."""

import logging

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from .config import ORIGINS
from .routes import invoices, payments

logger = logging.getLogger(__name__)

app = FastAPI(
    title="Billing",
    version="2.3.1",
    docs_url="/docs",
    redoc_url=None,
)

app.add_middleware(
    CORSMiddleware,
    allow_origins=ORIGINS,
    allow_credentials=True,
    allow_methods=["*"],
    allow_headers=["*"],
)

app.include_router(invoices, prefix="/invoices", tags=["invoices"])
app.include_router(payments, prefix="/payments", tags=["payments"])


@app.get("/health", include_in_schema=False)
async def health() -> dict[str, str]:
    logger.debug("asked for health")
    return {"status": "ok"}
