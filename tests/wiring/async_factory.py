import asyncio

import uvicorn
from fastapi import FastAPI


async def build() -> FastAPI:
    await asyncio.sleep(0)
    app = FastAPI(title="billing")

    @app.on_event("startup")
    async def startup() -> None:
        record("startup")

    return app


async def main() -> None:
    app = await build()
    await uvicorn.Server(uvicorn.Config(app, port=8000)).serve()


if __name__ == "__main__":
    asyncio.run(main())
