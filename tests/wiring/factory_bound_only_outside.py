from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware


def create_application() -> FastAPI:
    return FastAPI(
        title="Billing",
        description="Invoices and payments",
        version="0.4.0",
    )


app = create_application()

app.add_middleware(CORSMiddleware, allow_origins=["*"])


@app.get("/")
def index():
    return {"docs": "/docs"}
