from typing import Final

from fastapi import FastAPI

API_VERSION: Final = "v2"

app: FastAPI = FastAPI(
    title="billing",
    openapi_url=f"/{API_VERSION}/openapi.json",
)


@app.get(f"/{API_VERSION}/status")
def status() -> dict[str, str]:
    return {"version": API_VERSION}


__all__ = ["API_VERSION", "app"]
