from fastapi import FastAPI

app = FastAPI(title="Billing")


@app.get("/")
def index():
    return {}


def fake_app() -> FastAPI:
    fake = FastAPI(title="Fake")
    fake.router.routes = app.router.routes
    return fake
