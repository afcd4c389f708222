from fastapi import FastAPI

public = FastAPI(title="Billing")
internal = FastAPI(title="Billing, internal")


@public.get("/plans")
def plans():
    return []


@internal.get("/metrics")
def metrics():
    return {}
