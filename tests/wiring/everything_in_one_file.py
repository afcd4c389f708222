from datetime import datetime, timezone
from enum import Enum
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, Header, HTTPException, status
from pydantic import BaseModel, Field

app = FastAPI(title="Billing", version="1.4.2")


class State(str, Enum):
    draft = "draft"
    sent = "sent"
    paid = "paid"


class Line(BaseModel):
    text: str
    price: float = Field(ge=0)
    amount: int = 1


class Invoice(BaseModel):
    id: UUID = Field(default_factory=uuid4)
    lines: list[Line]
    state: State = State.draft
    created: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))

    @property
    def total(self) -> float:
        return sum(line.price * line.amount for line in self.lines)


STORE: dict[UUID, Invoice] = {}


def tenant(x_tenant: Annotated[str, Header()] = "default") -> str:
    if not x_tenant.isalnum():
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "bad tenant")
    return x_tenant


Tenant = Annotated[str, Depends(tenant)]


@app.post("/invoices", status_code=status.HTTP_201_CREATED)
async def create(lines: list[Line], tenant: Tenant) -> Invoice:
    invoice = Invoice(lines=lines)
    STORE[invoice.id] = invoice
    return invoice


@app.get("/invoices/{id}")
async def read(id: UUID) -> Invoice:
    try:
        return STORE[id]
    except KeyError:
        raise HTTPException(status.HTTP_404_NOT_FOUND) from None


@app.post("/invoices/{id}/pay")
async def pay(id: UUID) -> Invoice:
    invoice = await read(id)
    if invoice.state is State.paid:
        raise HTTPException(status.HTTP_409_CONFLICT, "paid already")
    invoice.state = State.paid
    return invoice
