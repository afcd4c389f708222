import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.on_event("startup")
def startup():
    record("startup")


@app.get("/")
def index():
    return {}


uvicorn.run(app, port=8000)
record("after the server")
print(app.title)
