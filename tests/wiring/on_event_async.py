import fastapi
import uvicorn

from fastapi.middleware.cors import CORSMiddleware


class Database:
    async def connect(self):
        record("connect")

    async def disconnect(self):
        record("disconnect")


database = Database()
app = fastapi.FastAPI()
app.add_middleware(CORSMiddleware, allow_origins=["*"])


@app.on_event("startup")
async def startup():
    await database.connect()


@app.on_event("shutdown")
async def shutdown():
    await database.disconnect()


@app.get("/")
async def root():
    return {"database": "connected"}


if __name__ == "__main__":
    uvicorn.run("main:app", port=8000, host="0.0.0.0", reload=True)
