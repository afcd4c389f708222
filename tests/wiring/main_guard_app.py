import uvicorn
from fastapi import FastAPI

from helpers import total

app = FastAPI(title="billing")


@app.get("/ping")
def ping():
    return "pong"


@app.post("/total")
def add(lines: list[float]):
    return {"total": total(lines)}


if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=8000)
