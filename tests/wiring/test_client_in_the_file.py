from fastapi import FastAPI

app = FastAPI()


@app.on_event("startup")
def startup():
    record("startup")


@app.get("/")
def index():
    return {"ok": True}


def schema() -> dict[str, object]:
    """Used by the documentation's build."""
    return app.openapi()


SCHEMA = schema()
