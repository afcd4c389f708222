from fastapi import FastAPI

application = app = FastAPI(title="billing")


@application.get("/")
def index():
    return {"ok": True}
