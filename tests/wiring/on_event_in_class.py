from fastapi import FastAPI


class BillingServer:
    def __init__(self, title: str) -> None:
        self.app = FastAPI(title=title)
        self.app.on_event("startup")(self.start)
        self.app.on_event("shutdown")(self.stop)
        self._routes()

    async def start(self) -> None:
        record("server start")

    async def stop(self) -> None:
        record("server stop")

    def _routes(self) -> None:
        @self.app.get("/")
        async def index() -> dict[str, str]:
            return {"title": self.app.title}


server = BillingServer("Billing")
