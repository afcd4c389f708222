'''Billing service.

Example::

    app = FastAPI(lifespan=lifespan)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        yield
'''

from fastapi import FastAPI

TEMPLATE = """
from fastapi import FastAPI

other = FastAPI()

if __name__ == "__main__":
    uvicorn.run(other)
"""

# app = FastAPI(title="old")
app = FastAPI(description=__doc__)


@app.get("/template")
def template() -> str:
    """Shows how to write one: `app = FastAPI()`."""
    return TEMPLATE
