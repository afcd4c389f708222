from contextlib import asynccontextmanager

from fastapi import FastAPI

ÜBERSICHT = {"名前": "請求", "emoji": "🧾"}


@asynccontextmanager
async def жизнь(app: FastAPI):
    """应用启动时的初始化。"""
    record("启动")
    yield  # 通过 yield 将控制权交给 FastAPI
    record("关闭")


app = FastAPI(title="請求", lifespan=жизнь)
