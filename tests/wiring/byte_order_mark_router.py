from fastapi import FastAPI
app = FastAPI()


@app.on_event("shutdown")
def shutdown():
    record("shutdown")
