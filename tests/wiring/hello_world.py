from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def root():
    return {"message": "Hello from billing"}


@app.get("/invoices/{invoice_id}")
async def read_invoice(invoice_id: int, q: str | None = None):
    if q:
        return {"invoice_id": invoice_id, "q": q}
    return {"invoice_id": invoice_id}
