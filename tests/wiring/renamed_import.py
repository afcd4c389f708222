import fastapi as fa
from fastapi import FastAPI as WebApp

service = WebApp(title="billing")
limit = fa.Query(50, le=100)


@service.get("/items")
def items(size: int = limit):
    return list(range(size))
