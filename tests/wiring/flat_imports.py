from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import models
from database import create_tables

create_tables()

app = FastAPI()


class Invoice(BaseModel):
    number: str
    total: float


@app.post("/invoices/")
def create_invoice(invoice: Invoice):
    if invoice.number in models.INVOICES:
        raise HTTPException(status_code=400, detail="Invoice already there")
    models.INVOICES[invoice.number] = invoice
    return invoice


@app.get("/invoices/")
def list_invoices(skip: int = 0, limit: int = 100):
    return list(models.INVOICES.values())[skip : skip + limit]
