from fastapi import FastAPI
from .mongo import Client

client = Client("mongodb://localhost")
app = FastAPI()


@app.get("/orders")
async def orders():
    return await client.all("orders")


@app.on_event("shutdown")
async def shutdown_db_client():
    client.close()