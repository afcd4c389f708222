from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

HERE = Path(__file__).parent

app = FastAPI()


@app.get("/api/invoices")
async def invoices():
    return []


@app.get("/favicon.ico", include_in_schema=False)
async def favicon():
    return FileResponse(HERE / "favicon.ico")


# Must be last: it answers everything that nothing else did.
app.mount("/", StaticFiles(directory=HERE, html=True), name="frontend")
