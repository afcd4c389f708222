import app.billing.models
from fastapi import FastAPI

Base = app.billing.models.Base

app = FastAPI(title="billing")


@app.get("/base")
def base():
    return {"base": Base.__name__}
