import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import logging

logging.basicConfig(level=os.getenv("LOG_LEVEL", "INFO"))
logger = logging.getLogger(__name__)

from fastapi import FastAPI

from utils.text import clean

app = FastAPI()


@app.get("/clean")
def clean_text(text: str):
    return {"text": clean(text)}
