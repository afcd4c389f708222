from fastapi import FastAPI

app = FastAPI()
prices = {"basic": 10}


@app.get("/")
def index():
    return f"basic costs {prices["basic"]}"
