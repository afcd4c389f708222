from fastapi import FastAPI


def with_routes(app: FastAPI) -> FastAPI:
    @app.get("/")
    def index():
        return {}

    return app


def with_events(app: FastAPI) -> FastAPI:
    @app.on_event("startup")
    def startup():
        record("startup")

    return app


app = FastAPI(title="billing")
app = with_events(with_routes(app))
