#!/usr/bin/python3
# -*- coding: latin-1 -*-
"""Rechnungen für Käufer."""
from contextlib import asynccontextmanager

from fastapi import FastAPI

GRÜSSE = "Grüße, à bientôt"


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("geöffnet")
    yield  # läuft
    record("geschlossen")


app = FastAPI(title="Zahlungsübersicht", lifespan=lifespan)
