from fastapi import FastAPI

app = None


def init() -> None:
    global app
    app = FastAPI(title="billing")

    @app.on_event("startup")
    async def startup() -> None:
        record("startup")


init()
