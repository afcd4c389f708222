from fastapi import FastAPI

from .events import register_events

app = FastAPI(title="Billing")


@app.get("/invoices")
def invoices() -> list[str]:
    return []


register_events(app)
