from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    yield
    record("down")


class Server:
    def __init__(self) -> None:
        self.app = FastAPI(lifespan=lifespan)
        self.app.add_api_route("/", self.index)

    async def index(self) -> dict[str, str]:
        return {"title": self.app.title}


server = Server()
