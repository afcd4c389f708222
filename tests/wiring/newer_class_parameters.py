from fastapi import FastAPI
from pydantic import BaseModel


class Page[T](BaseModel):
    items: list[T]
    total: int


app = FastAPI()


@app.get("/invoices")
def invoices() -> Page[int]:
    return Page[int](items=[], total=0)
