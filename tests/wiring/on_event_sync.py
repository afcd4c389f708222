import logging

from fastapi import FastAPI

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("billing")
app = FastAPI()
model = None


@app.on_event("startup")
def load_model():
    global model
    model = {"weights": [1, 2, 3]}
    record("model loaded")
    logger.info("Model loaded")


@app.on_event("shutdown")
def clean_up():
    global model
    model = None
    record("model freed")


@app.post("/predict")
def predict(x: float):
    return {"y": sum(w * x for w in model["weights"])}
