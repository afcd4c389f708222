import asyncio

import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def root():
    return {"status": "up"}


async def main():
    config = uvicorn.Config(app, host="127.0.0.1", port=8000, log_level="info")
    server = uvicorn.Server(config)
    record("before")
    await server.serve()
    record("after")


if __name__ == "__main__":
    asyncio.run(main())
