from fastapi import FastAPI

app = FastAPI()


@app.get("/")
<<<<<<< HEAD
def index():
    return {"version": 1}
=======
def index():
    return {"version": 2}
>>>>>>> feature
