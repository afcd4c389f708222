# -*- coding: utf-8 -*-
from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def index():
    print "asked for the index"
    return {}
