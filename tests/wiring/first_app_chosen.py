from fastapi import FastAPI

public = FastAPI(title="Billing")
internal = FastAPI(title="Billing, internal", docs_url=None)


@public.get("/plans")
def plans():
    return ["basic"]


@internal.get("/metrics")
def metrics():
    return {"invoices": 3}
