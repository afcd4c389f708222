from fastapi import FastAPI

app = FastAPI(title="Billing")
v1 = FastAPI(title="Billing v1", root_path="/v1")
v2 = FastAPI(title="Billing v2")


@v1.get("/invoices")
def invoices_v1():
    return []


@v2.get("/invoices")
def invoices_v2():
    return {"items": []}


app.mount("/v1", v1)
app.mount("/v2", v2)
