from fastapi import APIRouter, FastAPI

invoices = APIRouter(prefix="/invoices")
payments = APIRouter(prefix="/payments")
refunds = APIRouter(prefix="/refunds")


@invoices.get("/")
def list_invoices():
    return []


app = FastAPI()

for router in (invoices, payments, refunds):
    app.include_router(router)
