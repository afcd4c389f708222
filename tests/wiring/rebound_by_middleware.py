from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

app = FastAPI()


@app.get("/")
def root():
    return {"service": "billing"}


app = CORSMiddleware(
    app=app,
    allow_origins=["*"],
    allow_methods=["*"],
)
