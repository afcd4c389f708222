import time

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi

app = FastAPI()


@app.middleware("http")
async def add_process_time_header(request: Request, call_next):
    start = time.perf_counter()
    response = await call_next(request)
    response.headers["X-Process-Time"] = str(time.perf_counter() - start)
    return response


def custom_openapi():
    if app.openapi_schema:
        return app.openapi_schema
    app.openapi_schema = get_openapi(
        title="Billing", version="2.5.0", routes=app.routes
    )
    app.openapi_schema["info"]["x-logo"] = {"url": "/logo.png"}
    return app.openapi_schema


app.openapi = custom_openapi
