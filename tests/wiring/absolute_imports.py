from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from app.billing import settings
from app.billing.routes import router

app = FastAPI(title=settings.TITLE, debug=settings.DEBUG)
app.include_router(router, prefix="/api/v1")


class InvoiceNotFound(Exception):
    def __init__(self, number: str) -> None:
        self.number = number


@app.exception_handler(InvoiceNotFound)
async def invoice_not_found(request: Request, error: InvoiceNotFound) -> JSONResponse:
    return JSONResponse({"detail": f"no invoice {error.number}"}, status_code=404)
