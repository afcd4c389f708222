from fastapi import FastAPI

app = FastAPI(title="first")


@app.get("/")
def index():
    return {}


app = FastAPI(title="second")


@app.get("/again")
def again():
    return {}
