from contextlib import asynccontextmanager

from fastapi import FastAPI

ml_models = {}


@asynccontextmanager
async def lifespan(app: FastAPI):
    # Load the ML model
    ml_models["answer"] = lambda x: x * 42
    record("loaded")
    yield
    # Clean up the ML models and release the resources
    ml_models.clear()
    record("cleared")


app = FastAPI(lifespan=lifespan)


@app.get("/predict")
async def predict(x: float):
    return {"result": ml_models["answer"](x)}
