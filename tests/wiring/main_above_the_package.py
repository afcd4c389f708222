from fastapi import FastAPI

from app.billing.api import router

app = FastAPI()
app.include_router(router)
