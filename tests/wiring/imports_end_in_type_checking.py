from __future__ import annotations

import json as stdlib_json
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

try:
    import orjson as json
except ImportError:
    json = stdlib_json  # type: ignore[assignment]

if TYPE_CHECKING:
    from .models import Invoice

app = FastAPI()


def dump(invoice: Invoice) -> Any:
    return json.dumps({"number": invoice.number})


@app.get("/")
def index() -> dict[str, str]:
    return {"json": json.__name__}
