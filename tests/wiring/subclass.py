from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute


class BillingApp(FastAPI):
    """An app that knows its tenants."""

    def __init__(self, *, tenants: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tenants = tenants

    def operation_ids(self) -> None:
        for route in self.routes:
            if isinstance(route, APIRoute):
                route.operation_id = route.name


app = BillingApp(tenants=["acme", "globex"], title="Billing")


@app.get("/tenants")
def tenants() -> list[str]:
    return app.tenants


app.operation_ids()
