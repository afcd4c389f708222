from .models import TABLES
from fastapi import FastAPI
import os, sys
from contextlib import asynccontextmanager
import json

@asynccontextmanager
async def lifespan(app: FastAPI):
    record(json.dumps(TABLES))
    yield
    record(os.sep)

app = FastAPI(lifespan=lifespan, title=sys.platform)
